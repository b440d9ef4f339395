#include "core/version.h"

#include "version_generated.h"  // written at build time by version.cmake

namespace nsa {

const char* version() { return NSA_VERSION; }
const char* commit() { return NSA_COMMIT; }

}  // namespace nsa
