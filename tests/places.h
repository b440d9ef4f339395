// Where the checkout and the binaries are. Told to main.cpp alone, so that the tests' objects do not depend on it.
#pragma once

extern const char* const kSourceDir;
extern const char* const kBinaryDir;
