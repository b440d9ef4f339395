// The colours and dashes of curves, and the style rules of charts, light and dark.
#pragma once

#include <string>

namespace nsa::report {

inline constexpr int kPaletteSize = 7;  ///< styles after which colours repeat

/// Colour-blind-safe (Okabe and Ito 2008), and the dash pattern that says the same without colour.
const char* palette_colour(int style);
const char* palette_dash(int style);
/// A dark-to-light scale for ordered things (layers), share in [0, 1].
std::string ordered_colour(double share);
/// Style rules of charts, for <style>: the dark colours are used under `prefers-color-scheme: dark`.
std::string chart_style();

}  // namespace nsa::report
