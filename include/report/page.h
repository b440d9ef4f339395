// What `nsa report` writes: report.html (one self-contained file, readable without script and network), curves.svg and
// curves.tsv.
#pragma once

#include <string>
#include <vector>

#include "report/comparison.h"

namespace nsa::report {

struct PageInfo {
  std::string date;     ///< when the page was made
  std::string command;  ///< that made it
};

std::string report_html(const std::vector<History>& runs, const Comparison& comparison, const PageInfo& info);
/// Loss and difference against step, for a paper or a README.
std::string curves_svg(const std::vector<History>& runs, const Comparison& comparison);
/// kind (mean, difference, val, run), group, run, seed, step, tokens, seconds, loss (or bits_per_byte, when tokenizers
/// differ), low, high; tab-separated, at most about 200k lines.
std::string curves_tsv(const std::vector<History>& runs, const Comparison& comparison);

/// Reads, compares and writes the three files into `folder`. Returns the comparison's runs through `runs`, which it
/// refers to.
Comparison make_report(const std::vector<Source>& sources, const std::string& folder, double half_life,
                       const PageInfo& info, int threads, std::vector<History>& runs);

}  // namespace nsa::report
