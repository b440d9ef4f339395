// Text from a trained run wherever one stands: its own tokenizer, found and compared; padding rows never drawn.
#include "cli/workplace.h"

namespace {

namespace fs = std::filesystem;

// A run on the tokens of a trained tokenizer that was named by a path relative to the working directory.
struct TokenizerPlace : Workplace {
  const std::string in_dir = "cd " + dir.path() + "; ";
  TokenizerPlace() {
    fs::copy_file(small_model(), dir / "t.model");
    REQUIRE(run_tool("tokenize", "text.txt --tokenizer t.model --val-fraction 0 --out pieces", in_dir).status == 0);
    const Ran ran = run_tool("nsa",
                             "train tiny.json train.steps=30 data.train=pieces_train_*.bin data.val= eval.every=0 "
                             "data.tokenizer=t.model model.vocab_size=400 log.dir=runs log.name=r",
                             in_dir);
    INFO(ran.output);
    REQUIRE(ran.status == 0);
  }
  // Another tokenizer of as many pieces at `path`.
  void train_other(const std::string& path) const {
    std::string text = training_text();
    for (char& c : text) c = c >= 'a' && c < 'z' ? static_cast<char>(c + 1) : c;
    write_text(dir / "other.txt", text);
    const Ran ran = run_tool("train_tokenizer", dir / "other.txt" + " --vocab-size 400 --threads 1 --out " + path);
    INFO(ran.output);
    REQUIRE(ran.status == 0);
  }
};

const char* const kGenerate = " --prompt 'The quick' --tokens 20 --temperature 0";

}  // namespace

TEST_CASE("a run generates with the tokenizer it was trained with, from any folder", "[process]") {
  const TokenizerPlace place;
  const std::string run = place.dir / "runs/r", copy = run + "/tokenizer.model";
  const Ran here = run_tool("nsa", "generate runs/r" + std::string(kGenerate), place.in_dir);
  INFO(here.output);
  REQUIRE(here.status == 0);
  CHECK(run_tool("nsa", "generate " + run + kGenerate, "cd /; ").output == here.output);

  // trained anew under the same name: the copy in the run's folder is the one that counts
  fs::rename(place.dir / "t.model", place.dir / "kept.model");
  place.train_other(place.dir / "t.model");
  CHECK(run_tool("nsa", "generate " + run + kGenerate, "cd /; ").output == here.output);
  const std::string other = " --tokenizer " + place.dir / "t.model";
  const Ran refused = run_tool("nsa", "generate " + run + kGenerate + other);
  CHECK(refused.status == 1);
  CHECK(contains(refused.output, "not the tokenizer the run was trained with"));

  // without the copy: the config's, from here or from a folder above the run, and compared
  fs::remove(copy);
  CHECK(run_tool("nsa", "generate " + run + kGenerate, "cd /; ").status == 1);
  fs::copy_file(place.dir / "kept.model", place.dir / "t.model", fs::copy_options::overwrite_existing);
  CHECK(run_tool("nsa", "generate " + run + kGenerate, "cd /; ").output == here.output);
  fs::remove(place.dir / "t.model");
  const Ran missing = run_tool("nsa", "generate " + run + kGenerate, "cd /; ");
  CHECK(missing.status == 1);
  CHECK(contains(missing.output, "t.model"));
  CHECK(contains(missing.output, "--tokenizer"));
  CHECK(run_tool("nsa", "generate " + run + kGenerate + " --tokenizer " + place.dir / "kept.model").output ==
        here.output);
  CHECK(run_tool("nsa", "generate " + run + kGenerate + " --tokenizer bytes").status == 1);
}

TEST_CASE("~ is the home folder on command lines too, and never a folder of that name", "[process]") {
  const Workplace place(2);
  const std::string home = place.dir / "home";
  fs::create_directory(home);
  fs::copy_file(place.full, home + "/full.json");
  fs::copy_file(place.config, home + "/nsa.json");
  const auto with_home = [&](const std::string& arguments) {
    return run_tool("nsa", arguments, "cd " + place.dir.path() + "; HOME=" + home + " ");
  };
  const Ran trained = with_home("train '~/full.json' 'log.dir=~/runs' eval.every=0 eval.sample_every=0");
  INFO(trained.output);
  CHECK(trained.status == 0);
  CHECK(fs::exists(home + "/runs/full/checkpoints"));
  CHECK(with_home("generate '~/runs/full' --tokens 2").status == 0);
  CHECK(with_home("compare '~/full.json' '~/nsa.json' '--out=~/cmp'").status == 0);
  CHECK(fs::exists(home + "/cmp/report.html"));
  CHECK(!fs::exists(place.dir / "~"));
  const Ran homeless = run_tool("nsa", "train tiny.json 'log.dir=~/runs'", "cd " + place.dir.path() + "; unset HOME; ");
  CHECK(homeless.status == 2);
  CHECK(contains(homeless.output, "HOME is not set"));
}
