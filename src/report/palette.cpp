#include "report/palette.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace nsa::report {
namespace {

constexpr std::array<const char*, kPaletteSize> kColours{"#0072B2", "#D55E00", "#009E73", "#CC79A7",
                                                         "#E69F00", "#56B4E9", "#555555"};
constexpr std::array<const char*, kPaletteSize> kDarkColours{"#4DA9E8", "#FF8A3D", "#2CC79B", "#E6A0C8",
                                                             "#F2B93B", "#8CD0FA", "#BBBBBB"};
constexpr std::array<const char*, 6> kDashes{"", "8 3", "2 2.5", "9 3 2 3", "14 4", "5 2 2 2 2 2"};

}  // namespace

const char* palette_colour(int style) { return kColours[static_cast<std::size_t>(style) % kPaletteSize]; }
const char* palette_dash(int style) { return kDashes[static_cast<std::size_t>(style) % kDashes.size()]; }

std::string ordered_colour(double share) {
  // cividis (Nunez et al. 2018) at five places; its ends are left out, they vanish on black or white
  constexpr double kScale[5][3] = {{28, 67, 118}, {86, 92, 108}, {124, 123, 120}, {168, 157, 104}, {213, 192, 80}};
  const double at = std::clamp(share, 0.0, 1.0) * 4;
  const auto i = static_cast<std::size_t>(std::min(3.0, std::floor(at)));
  std::array<int, 3> c{};
  for (std::size_t k = 0; k < 3; ++k)
    c[k] =
        static_cast<int>(std::lround(kScale[i][k] + (kScale[i + 1][k] - kScale[i][k]) * (at - static_cast<double>(i))));
  return fmt::format("#{:02x}{:02x}{:02x}", c[0], c[1], c[2]);
}

std::string chart_style() {
  std::string css =
      "svg text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif;fill:#222}svg "
      ".tick,svg .unit{fill:#555}"
      "svg .title{font-weight:600;font-size:14px}svg .zero{stroke-width:1.2}";
  css +=
      "@media screen and (prefers-color-scheme:dark){svg text{fill:#e6e6e6}svg .tick,svg .unit{fill:#a8a8a8}svg "
      ".grid{stroke:#333}svg .axis{stroke:#888}svg "
      ".zero{stroke:#aaa}"
      "svg .marks,svg .grows{fill:#16181c}svg .halo{stroke:#16181c}svg .layer{filter:brightness(1.35)}svg "
      ".paper{fill:#16181c}";
  for (int i = 0; i < kPaletteSize; ++i)
    css += fmt::format("svg .k{0}{{stroke:{1}}}svg .f{0}{{fill:{1}}}", i, kDarkColours[static_cast<std::size_t>(i)]);
  return css + "}";
}

}  // namespace nsa::report
