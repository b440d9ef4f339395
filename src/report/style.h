// The style sheet and the little script of a report: constant text.
#pragma once

#include <string>

namespace nsa::report {

std::string page_style();
/// Hover values and switches for curves. The page says everything without it.
std::string page_script();

}  // namespace nsa::report
