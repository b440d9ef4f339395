// The whole way from files to a page.
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "catch.h"
#include "report/page.h"
#include "report/synthetic.h"
#include "report/terminal.h"

using namespace nsa;
using namespace nsa::report;
namespace fs = std::filesystem;

namespace {

struct Folder {
  std::string path = (fs::temp_directory_path() / fmt::format("nsa_report_{}_{}", getpid(), count())).string();
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
  static int count() {
    static int n = 0;
    return n++;
  }
};

std::vector<Source> sources(const std::vector<std::string>& paths) {
  std::vector<Source> out;
  for (const std::string& path : paths) out.push_back({path, "", ""});
  return out;
}

std::size_t occurrences(const std::string& text, const std::string& what) {
  std::size_t n = 0;
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
  return n;
}

const PageInfo kInfo{"2026-01-01", "nsa report"};

}  // namespace

// For people and for the browser test: NSA_PAGE_DIR=folder test_report "[.page]"
TEST_CASE("pages to look at", "[.page]") {
  const char* dir = std::getenv("NSA_PAGE_DIR");
  REQUIRE(dir != nullptr);
  const std::string out = dir;
  std::vector<History> runs;
  const auto paths = test::write_comparison(out + "/runs");
  const Comparison c = make_report(sources(paths), out + "/comparison", -1, kInfo, 2, runs);
  write_file_atomic(out + "/comparison/term.txt", report_text(c, 100));
  write_file_atomic(out + "/comparison/watch.txt", watch_text(read_run(paths[4]), "runs/nsa-seed2", 3, 100));

  test::Synthetic growing{"tiny_nsa_window_256_long_name", "nsa"};
  growing.steps = 700;
  growing.cut_last = true;
  test::Synthetic one{"one-point", "full"};
  one.steps = 1;
  make_report(sources({paths[0], test::write_run(out + "/runs", growing), test::write_run(out + "/runs", one)}),
              out + "/uneven", -1, kInfo, 2, runs);

  std::vector<std::string> foreign;
  for (int i = 0; i < 24; ++i) {
    std::string text = "step\tloss\n";
    const Rng rng(7, fmt::format("foreign {}", i));
    for (int step = 1; step <= 600; ++step)
      text += fmt::format("{}\t{:.4f}\n", step * 10,
                          2 + 0.02 * i + 6 / (1 + step / 20.0) + 0.05 * rng.normal(static_cast<std::uint64_t>(step)));
    foreign.push_back(fmt::format("{}/runs/sweep_{}.tsv", out, i));
    write_file_atomic(foreign.back(), text);
  }
  make_report(sources(foreign), out + "/many", -1, kInfo, 2, runs);

  std::vector<std::string> diverged;
  for (const char* name : {"steady-seed1", "shaky-seed1", "wild-seed1", "steady-seed2", "shaky-seed2", "wild-seed2"}) {
    test::Synthetic s{name, "nsa"};
    s.seed = name[std::string(name).size() - 1] - '0';
    s.lr = name[0] == 'w' ? 0.3 : name[1] == 'h' ? 0.02 : 3e-3;
    s.diverges_at = name[0] == 'w' ? 300 * s.seed : name[1] == 'h' && s.seed == 2 ? 1200 : 0;
    diverged.push_back(test::write_run(out + "/runs", s));
  }
  make_report(sources(diverged), out + "/diverged", -1, kInfo, 2, runs);

  for (const double bytes : {4.0, 0.0}) {
    test::Synthetic byte{"byte-seed1", "nsa"}, piece{"piece-seed1", "nsa"};
    piece.tokenizer = "data/pieces.model";
    piece.vocab = 2048;
    piece.floor = 2.9;
    piece.bytes_per_token = bytes;
    make_report(sources({test::write_run(out + "/runs", byte), test::write_run(out + "/runs", piece)}),
                out + (bytes > 0 ? "/tokenizers" : "/incomparable"), -1, kInfo, 2, runs);
  }
}

TEST_CASE("a comparison of two configurations with three seeds") {
  Folder folder;
  std::vector<History> runs;
  const Comparison c =
      make_report(sources(test::write_comparison(folder.path + "/runs")), folder.path + "/out", -1, kInfo, 2, runs);
  REQUIRE(c.groups.size() == 2);
  CHECK(c.groups[0].name == "full");
  CHECK(c.groups[1].name == "nsa");
  CHECK(c.groups[1].runs.size() == 3);
  CHECK(c.rows[0].label == "validation loss");
  CHECK(c.compared_step == 2000);
  CHECK(c.rows[0].differences[1].pairs == 3);
  CHECK(c.rows[0].differences[1].mean == Approx(-0.01).margin(0.02));
  REQUIRE(c.config.size() == 1);
  CHECK(c.config[0].path == "model.attention.type");
  const std::string page = read_file(folder.path + "/out/report.html");
  CHECK(occurrences(page, "data-id=\"loss\"") == 2);  // wide and narrow
  CHECK(occurrences(page, "class=\"band f") ==
        2 * 2 + 2 + 2 * 1 + 2 + 2);  // loss, its two small ones, difference, norm
  CHECK(page.find("http://") == page.find("http://www.w3.org/2000/svg"));
  CHECK(page.find("https://") == std::string::npos);
  CHECK(page.find("src=") == std::string::npos);
  CHECK(page.find("nan") == std::string::npos);
  CHECK(page.find("within noise") != std::string::npos);
  CHECK(read_file(folder.path + "/out/curves.svg").find("nan") == std::string::npos);
  CHECK(read_file(folder.path + "/out/curves.tsv").find("difference\tnsa") != std::string::npos);
  CHECK(report_text(c, 100).find("nsa \u2212 full") != std::string::npos);
}

TEST_CASE("the awkward runs: one point, growing and cut, nothing but NaN, no loss at all") {
  Folder folder;
  test::Synthetic one{"one-seed1", "full"}, growing{"growing-seed1", "nsa"}, whole{"whole-seed1", "nsa"};
  one.steps = 1;
  growing.steps = 700;
  growing.cut_last = true;
  const std::string nans = folder.path + "/nans.tsv", text = folder.path + "/<b>&.tsv";
  write_file_atomic(nans, "step\tloss\n1\tnan\n2\tnan\n");
  write_file_atomic(text, "1\t2.5\n2\t2.25\n");
  std::vector<History> runs;
  const std::vector<std::string> all{test::write_run(folder.path, one), test::write_run(folder.path, growing),
                                     test::write_run(folder.path, whole), nans, text};
  const Comparison c = make_report(sources(all), folder.path + "/out", -1, kInfo, 2, runs);
  CHECK(runs[0].state == State::running);
  CHECK(runs[1].last_step == 699);
  CHECK(runs[2].state == State::finished);
  CHECK(runs[3].non_finite == 2);
  const std::string page = read_file(folder.path + "/out/report.html");
  CHECK(page.find("<b>&") == std::string::npos);
  CHECK(page.find("&lt;b&gt;&amp;") != std::string::npos);
  CHECK(page.find("nan,") == std::string::npos);
  CHECK(page.find("Still running") != std::string::npos);
  CHECK(page.find("class=\"grows") != std::string::npos);
  CHECK_FALSE(report_text(c, 80).empty());
  for (const std::string& path : all) {  // and each alone
    make_report(sources({path}), folder.path + "/alone", -1, kInfo, 1, runs);
    CHECK(read_file(folder.path + "/alone/report.html").find("</html>") != std::string::npos);
    CHECK_FALSE(watch_text(read_run(path), "x", 1, 80).empty());
  }
}

TEST_CASE("NSA runs show whether each branch takes part; runs of older versions and full attention do without") {
  Folder folder;
  test::Synthetic now{"now-seed1", "nsa"}, older{"older-seed1", "nsa"}, full{"full-seed1", "full"};
  older.looks = false;
  std::vector<History> runs;
  const auto page_of = [&](const test::Synthetic& s) {
    make_report(sources({test::write_run(folder.path, s)}), folder.path + "/out", -1, kInfo, 1, runs);
    return read_file(folder.path + "/out/report.html");
  };
  const std::string page = page_of(now);
  for (const char* chart : {"entropy-0", "coverage-0", "share-0-0", "share-1-0", "share-2-0"})
    CHECK(occurrences(page, fmt::format("data-id=\"{}\"", chart)) == 1);
  CHECK(occurrences(page, "in as many blocks drawn at random.</figcaption>") == 1);
  const std::size_t coverage = page.find("data-id=\"coverage-0\""), after = page.find("</svg>", coverage);
  CHECK(occurrences(page.substr(coverage, after - coverage), "class=\"line ") == 4);
  CHECK(occurrences(page.substr(coverage, after - coverage), "class=\"thin ") == 4);
  CHECK(page.find("nan") == std::string::npos);
  const std::string old_page = page_of(older);
  CHECK(old_page.find("Gates of the NSA branches") != std::string::npos);
  CHECK(old_page.find("take part") == std::string::npos);
  CHECK(page_of(full).find("take part") == std::string::npos);

  const std::string watched = watch_text(read_run(folder.path + "/now-seed1"), "now", 3, 100);
  INFO(watched);
  CHECK(watched.find("branches at step 2000: shares of the output: compressed 0.3 % to 30.0 %, selected ") !=
        std::string::npos);
  CHECK(watched.find("; compression entropy 0.50 to 0.88; selection covers 0.40 to 0.70 (chance 0.35)") !=
        std::string::npos);
  CHECK(watch_text(read_run(folder.path + "/older-seed1"), "older", 3, 100).find("branches") == std::string::npos);
}

TEST_CASE("one seed: noise unknown; differences in more than attention are named") {
  Folder folder;
  test::Synthetic a{"full-seed1", "full"}, b{"nsa-seed1", "nsa"};
  b.lr = 1e-3;
  std::vector<History> runs;
  const Comparison c =
      make_report(sources({test::write_run(folder.path, a), test::write_run(folder.path, b)}), "", -1, kInfo, 1, runs);
  CHECK(verdicts(c).at(0).find("noise unknown") != std::string::npos);
  CHECK(std::any_of(c.notes.begin(), c.notes.end(), [](const std::string& n) {
    return n.find("more than attention: train.optimizer.lr") != std::string::npos;
  }));
}

TEST_CASE("two hundred runs make a small page") {
  Folder folder;
  std::vector<std::string> paths;
  for (int i = 0; i < 200; ++i) {
    std::string text = "step\tloss\n";
    const Rng rng(1, fmt::format("{}", i));
    for (int step = 1; step <= 3000; ++step)
      text += fmt::format("{}\t{:.3f}\n", step, 2 + 0.001 * i + 0.1 * rng.normal(static_cast<std::uint64_t>(step)));
    paths.push_back(fmt::format("{}/run_{}.tsv", folder.path, i));
    write_file_atomic(paths.back(), text);
  }
  std::vector<History> runs;
  make_report(sources(paths), folder.path + "/out", -1, kInfo, 2, runs);
  CHECK(fs::file_size(folder.path + "/out/report.html") < 5'000'000);
  CHECK(occurrences(read_file(folder.path + "/out/report.html"), "class=\"line ") == 2 * (200 + 199));
}

TEST_CASE("the numbers do not depend on the number of threads") {
  Folder folder;
  const auto paths = test::write_comparison(folder.path + "/runs");
  std::vector<History> runs;
  make_report(sources(paths), folder.path + "/1", -1, kInfo, 1, runs);
  make_report(sources(paths), folder.path + "/2", -1, kInfo, 2, runs);
  CHECK(read_file(folder.path + "/1/report.html") == read_file(folder.path + "/2/report.html"));
}
