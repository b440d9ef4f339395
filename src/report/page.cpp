#include "report/page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <iterator>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "core/file.h"
#include "report/figures.h"
#include "report/palette.h"
#include "report/style.h"

namespace nsa::report {
namespace {

constexpr Size kWide{860, 400}, kNarrow{390, 320}, kHalf{400, 270};
constexpr int kPointsPerChart = 25000;  // ~11 bytes each; a page of 200 runs stays below 5 MB

int points_per_curve(const std::vector<History>& runs, Size size) {
  return std::clamp(kPointsPerChart / std::max(1, static_cast<int>(runs.size())), 100, size.width * 3);
}

std::string svg_of(const Chart& chart, Size size, const char* klass, int points) {
  return svg_element(draw_chart(chart, size, points), size, klass, chart.title);
}

/// In two layouts, of which the style sheet shows one: text keeps its size on a phone.
std::string big_figure(const Chart& chart, const std::vector<History>& runs, const std::string& caption) {
  if (chart.layers.empty()) return {};
  return fmt::format("<h2>{}</h2>\n<figure id=\"{}\">{}\n{}\n<figcaption>{}</figcaption></figure>\n",
                     escape_html(chart.title), chart.id, svg_of(chart, kWide, "wide", points_per_curve(runs, kWide)),
                     svg_of(chart, kNarrow, "narrow", points_per_curve(runs, kNarrow)), caption);
}

std::string small_figures(const std::vector<Chart>& charts, const std::vector<History>& runs) {
  std::string out;
  for (const Chart& chart : charts) {
    if (chart.layers.empty()) continue;
    const std::string caption =
        chart.caption.empty() ? "" : "\n<figcaption>" + escape_html(chart.caption) + "</figcaption>";
    out += fmt::format("<figure id=\"{}\"><h3>{}</h3>{}{}</figure>\n", chart.id, escape_html(chart.title),
                       svg_of(chart, kHalf, "half", points_per_curve(runs, kHalf)), caption);
  }
  return out.empty() ? out : "<div class=\"grid2\">\n" + out + "</div>\n";
}

/// A name that may be broken after its underscores, where a phone has no room for it in one line.
std::string breakable(const std::string& name) {
  std::string out;
  for (char c : name) out += c == '_' ? std::string("_<wbr>") : std::string(1, c);
  return out;
}

std::string html_table(const CellTable& table, const char* klass) {
  std::string out = fmt::format("<div class=\"scroll\"><table class=\"{}\">", klass);
  for (std::size_t i = 0; i < table.size(); ++i) {
    out += i == 0 ? "<thead><tr>" : "<tr>";
    for (std::size_t k = 0; k < table[i].size(); ++k) {
      const Cell& cell = table[i][k];
      const char* tag = i == 0 || k == 0 ? "th" : "td";
      const std::string text = escape_html(cell.text);
      out += fmt::format("<{}{}>{}", tag, cell.strong ? " class=\"strong\"" : "", i == 0 ? breakable(text) : text);
      if (!cell.small.empty()) out += fmt::format("<span class=\"small\">{}</span>", escape_html(cell.small));
      out += fmt::format("</{}>", tag);
    }
    out += i == 0 ? "</tr></thead><tbody>\n" : "</tr>\n";
  }
  return out + "</tbody></table></div>\n";
}

std::string header(const std::vector<History>& runs, const Comparison& c, const PageInfo& info) {
  std::string title, seeds;
  for (std::size_t g = 0; g < std::min<std::size_t>(c.groups.size(), 4); ++g)
    title += (g ? " vs " : "") + c.groups[g].name;
  if (c.groups.size() > 4) title += fmt::format(" and {} more", c.groups.size() - 4);
  std::string out =
      fmt::format("<h1>{}</h1>\n<p class=\"soft\">{} {}, {} {}{}</p>\n", escape_html(title), c.groups.size(),
                  c.groups.size() == 1 ? "configuration" : "configurations", runs.size(),
                  runs.size() == 1 ? "run" : "runs", info.date.empty() ? "" : ", page made " + escape_html(info.date));
  const std::vector<std::string> sentences = verdicts(c);
  const std::size_t shown = std::min<std::size_t>(sentences.size(), 4);
  for (std::size_t i = 0; i < shown; ++i)
    out += fmt::format("<p class=\"verdict\">{}</p>\n", escape_html(sentences[i]));
  if (shown < sentences.size())
    out += fmt::format("<p class=\"soft\">{} more differences are in the table.</p>\n", sentences.size() - shown);
  for (const std::string& note : c.notes) out += fmt::format("<p class=\"soft note\">{}</p>\n", escape_html(note));
  return out;
}

std::string config_section(const Comparison& c) {
  if (c.config.empty()) return {};
  CellTable table(1);
  table[0].push_back({"field", "", false});
  for (const Group& group : c.groups) table[0].push_back({group.name, "", false});
  for (const ConfigDifference& d : c.config) {
    table.push_back({{d.path, "", false}});
    for (const std::string& value : d.values) table.back().push_back({value.empty() ? "\u2013" : value, "", false});
  }
  return "<h2>What differs in the configurations</h2>\n" +
         html_table(c.groups.size() > 4 ? turned(table) : table, "text");
}

const char* state_word(State state) {
  switch (state) {
    case State::finished: return "finished";
    case State::running: return "running";
    case State::stopped: return "stopped";
    case State::diverged: return "diverged";
    case State::unknown: break;
  }
  return "\u2013";
}

/// Loss and difference; where there is no unit for all, the losses one by one.
std::vector<Chart> main_charts(const Comparison& c) {
  std::vector<Chart> charts;
  if (c.measure == Measure::none) {
    for (const Group& group : c.groups) charts.push_back(loss_chart(c, XAxis::step, &group));
  } else {
    charts = {loss_chart(c, XAxis::step), difference_chart(c)};
  }
  std::erase_if(charts, [](const Chart& chart) { return chart.layers.empty(); });
  return charts;
}

/// One line per run; what is the same for all of them stands once, above.
std::string runs_section(const std::vector<History>& runs, const PageInfo& info) {
  struct Column {
    const char* title;
    std::string (*text)(const History&);
  };
  const Column columns[] = {{"seed", [](const History& r) { return r.seed; }},
                            {"state", [](const History& r) { return std::string(state_word(r.state)); }},
                            {"steps", [](const History& r) { return fmt::format("{:.0f}", r.last_step); }},
                            {"skipped", [](const History& r) { return fmt::format("{}", r.skipped); }},
                            {"started", [](const History& r) { return r.info.date; }},
                            {"commit", [](const History& r) { return r.info.commit; }},
                            {"version", [](const History& r) { return r.info.version; }},
                            {"machine", [](const History& r) { return r.info.machine; }},
                            {"command", [](const History& r) { return r.info.command; }}};
  std::string shared;
  CellTable table(runs.size() + 1);
  table[0].push_back({"run", "", false});
  for (std::size_t i = 0; i < runs.size(); ++i) table[i + 1].push_back({runs[i].name, "", false});
  for (const Column& column : columns) {
    const std::string first = runs.empty() ? "" : column.text(runs[0]);
    if (std::all_of(runs.begin(), runs.end(), [&](const History& run) { return column.text(run) == first; })) {
      if (!first.empty() && first != "\u2013")
        shared += fmt::format("<dt>{}</dt><dd>{}</dd>", column.title, escape_html(first));
      continue;
    }
    table[0].push_back({column.title, "", false});
    for (std::size_t i = 0; i < runs.size(); ++i) table[i + 1].push_back({column.text(runs[i]), "", false});
  }
  if (!info.command.empty())
    shared += fmt::format("<dt>this page</dt><dd><code>{}</code></dd>", escape_html(info.command));
  return "<h2>Runs</h2>\n" + (shared.empty() ? "" : "<dl>" + shared + "</dl>\n") + html_table(table, "text");
}

std::string loss_caption(const std::vector<History>& runs, const Comparison& c) {
  const bool seeds = std::any_of(c.groups.begin(), c.groups.end(), [](const Group& g) { return g.runs.size() > 1; });
  const bool vals = std::any_of(runs.begin(), runs.end(), [](const History& r) { return !r.vals.empty(); });
  std::string text = fmt::format(
      "Faint: loss of each batch. Strong: bias-corrected exponential moving average with a half-life of {} steps",
      format_value(c.half_life, Unit::plain));
  text += seeds ? ", mean over the seeds; band: range over the seeds." : ".";
  if (vals) text += seeds ? " Points: validation loss, mean and range over the seeds." : " Points: validation loss.";
  if (std::any_of(runs.begin(), runs.end(), [](const History& r) { return r.state == State::running; }))
    text += " Open circle: the run is still going.";
  if (std::any_of(runs.begin(), runs.end(), [](const History& r) { return r.state == State::diverged; }))
    text += " Cross: the run diverged.";
  return text + " An arrow head at the upper edge marks a batch beyond it.";
}

std::string difference_caption(const Comparison& c) {
  const bool several = std::any_of(c.rows[0].differences.begin(), c.rows[0].differences.end(),
                                   [](const PairedDifference& d) { return d.noise_known(); });
  return several ? "Below 0 the smoothed loss is lower than that of " + escape_html(c.groups[0].name) +
                       ". Line: mean over pairs of runs with the same seed; band: pointwise 95 % t interval. Points: "
                       "the same of the validation loss."
                 : "Below 0 the smoothed loss is lower than that of " + escape_html(c.groups[0].name) +
                       ". One pair of runs: how much of this is noise is unknown.";
}

/// NSA: the gates, and whether each branch takes part.
std::string branches_section(const std::vector<History>& runs, const Comparison& c) {
  std::string gates, looks;
  for (std::size_t g = 0; g < std::min<std::size_t>(c.groups.size(), 8); ++g) {
    const Group& group = c.groups[g];
    const int index = static_cast<int>(g);
    gates += small_figures(gate_charts(group, index), runs);
    std::vector<Chart> charts{entropy_chart(group, index), coverage_chart(group, index)};
    for (Chart& chart : share_charts(group, index)) charts.push_back(std::move(chart));
    looks += small_figures(charts, runs);
  }
  std::string out;
  if (!gates.empty())
    out += "<h2>Gates of the NSA branches</h2>\n" + gates +
           "<p class=\"soft\">Mean gate of each layer over the last micro-batch, mean over the seeds.</p>\n";
  if (!looks.empty())
    out += "<h2>Do all NSA branches take part?</h2>\n" + looks +
           "<p class=\"soft\">Each layer at every tenth step, mean over the seeds.</p>\n";
  return out;
}

void append_row(std::string& out, const char* kind, const std::string& group, const History* run,
                const std::vector<double>& numbers) {
  fmt::format_to(std::back_inserter(out), "{}\t{}\t{}\t{}", kind, group, run ? run->name : "", run ? run->seed : "");
  for (const double v : numbers)
    std::isfinite(v) ? fmt::format_to(std::back_inserter(out), "\t{:.7g}", v)
                     : fmt::format_to(std::back_inserter(out), "\t");
  out += '\n';
}

}  // namespace

std::string report_html(const std::vector<History>& runs, const Comparison& c, const PageInfo& info) {
  nlohmann::json names = nlohmann::json::array();
  for (std::size_t g = 0; g < std::min<std::size_t>(c.groups.size(), 12); ++g) names.push_back(c.groups[g].name);
  const std::string title = c.groups.size() > 1 ? c.groups[1].name + " vs " + c.groups[0].name : c.groups[0].name;
  std::string out = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width,initial-scale=1\">"
      "<link rel=\"icon\" href=\"data:,\"><title>{}</title><style>{}{}</style></head>\n<body>\n",
      escape_html(title), page_style(), chart_style());
  out += header(runs, c, info);
  out += fmt::format("<div class=\"keys\" data-groups=\"{}\"></div>\n",
                     escape_html(names.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)));
  out += "<h2>Result</h2>\n" + html_table(final_table(c), "compact");
  out +=
      "<p class=\"soft\">Values are means over the seeds, sd their standard deviation. Differences are paired by seed; "
      "\u00B1 is their standard error. "
      "\u201CWithin noise\u201D: the 95 % t interval of the paired difference contains 0.</p>\n";
  const bool one_unit = c.measure != Measure::none;
  for (const Chart& chart : main_charts(c)) {
    const bool of_loss = chart.id != "difference";
    out += big_figure(chart, runs, of_loss ? loss_caption(runs, c) : difference_caption(c));
  }
  const std::string others =
      one_unit ? small_figures({loss_chart(c, XAxis::tokens), loss_chart(c, XAxis::seconds)}, runs) : "";
  if (!others.empty()) out += "<h2>Loss against tokens and time</h2>\n" + others;
  const std::string optimisation = small_figures({norm_chart(c), lr_chart(c)}, runs);
  if (!optimisation.empty())
    out += "<h2>Optimisation</h2>\n" + optimisation +
           "<p class=\"soft\">Strokes on the axis of the gradient norm are skipped steps.</p>\n";
  out += branches_section(runs, c);
  out += config_section(c) + runs_section(runs, info);
  return out + "<script>" + page_script() + "</script>\n</body></html>\n";
}

std::string curves_svg(const std::vector<History>& runs, const Comparison& c) {
  const Size panel{860, 380};
  std::string content = "<style>" + chart_style() + "</style>";
  int height = 0;
  std::string panels;
  for (const Chart& chart : main_charts(c)) {
    panels += fmt::format(
        "<g transform=\"translate(16 {})\"><text class=\"title\" x=\"0\" y=\"0\">{}</text></g><g "
        "transform=\"translate(16 {})\">{}</g>",
        height + 24, escape_html(chart.title), height + 34, draw_chart(chart, panel, points_per_curve(runs, panel)));
    height += panel.height + 44;
  }
  const Size size{panel.width + 32, std::max(height, 40)};
  content += fmt::format("<rect class=\"paper\" width=\"{}\" height=\"{}\" fill=\"#fff\"/>", size.width, size.height);
  return "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n" + svg_element(content + panels, size, "curves", "loss curves") +
         "\n";
}

std::string curves_tsv(const std::vector<History>& runs, const Comparison& c) {
  std::string out = fmt::format("kind\tgroup\trun\tseed\tstep\ttokens\tseconds\t{}\tlow\thigh\n",
                                c.measure == Measure::bits_per_byte ? "bits_per_byte" : "loss");
  constexpr int kPoints = 500;
  for (std::size_t g = 0; g < c.groups.size(); ++g) {
    const BandCurve mean = mean_curve(c.groups[g], XAxis::step, kPoints);
    for (std::size_t i = 0; i < mean.x.size(); ++i)
      append_row(out, "mean", c.groups[g].name, nullptr,
                 {mean.x[i], kMissing, kMissing, mean.y[i], mean.low[i], mean.high[i]});
    if (g == 0 || c.measure == Measure::none) continue;
    const BandCurve d = difference_curve(c.groups[0], c.groups[g], kPoints);
    for (std::size_t i = 0; i < d.x.size(); ++i)
      append_row(out, "difference", c.groups[g].name, nullptr,
                 {d.x[i], kMissing, kMissing, d.y[i], d.low[i], d.high[i]});
  }
  const std::size_t limit = std::clamp<std::size_t>(100000 / std::max<std::size_t>(1, runs.size()), 50, kMaxBuckets);
  for (const Group& group : c.groups) {
    for (const History* run : group.runs) {
      for (const ValPoint& v : run->vals)
        append_row(out, "val", group.name, run, {v.step, v.tokens, v.seconds, v.value, kMissing, kMissing});
      const std::size_t width = (run->buckets.size() + limit - 1) / std::max<std::size_t>(1, limit);
      for (std::size_t i = 0; i < run->buckets.size(); i += std::max<std::size_t>(1, width)) {
        Bucket b = run->buckets[i];
        for (std::size_t k = i; k < std::min(i + width, run->buckets.size()); ++k) {
          b.loss_min = std::fmin(b.loss_min, run->buckets[k].loss_min);
          b.loss_max = std::fmax(b.loss_max, run->buckets[k].loss_max);
        }
        append_row(out, "run", group.name, run, {b.step, b.tokens, b.seconds, b.loss, b.loss_min, b.loss_max});
      }
    }
  }
  return out;
}

Comparison make_report(const std::vector<Source>& sources, const std::string& folder, double half_life,
                       const PageInfo& info, int threads, std::vector<History>& runs) {
  NSA_CHECK(!sources.empty(), "a report needs at least one run");
  runs = read_runs(sources, static_cast<double>(std::time(nullptr)), threads);
  const double h = half_life >= 0 ? half_life : default_half_life(runs);
  const Measure measure = common_measure(runs);
  express(runs, measure);
  smooth_runs(runs, h);
  Comparison c = compare_runs(runs, h, measure);
  if (folder.empty()) return c;
  make_folders(folder);
  write_file_atomic(folder + "/report.html", report_html(runs, c, info));
  write_file_atomic(folder + "/curves.svg", curves_svg(runs, c));
  write_file_atomic(folder + "/curves.tsv", curves_tsv(runs, c));
  return c;
}

}  // namespace nsa::report
