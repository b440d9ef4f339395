// stdin, stdout and stderr as shells and schedulers leave them: closed, full, a pipe that nobody reads. No program dies
// of them, and no file opened gets their numbers.
#include "cli/workplace.h"

using namespace nsa;

namespace {

/// Exit code of a shell line in which $B is the folder of the programs. 128 and more: killed.
int shell(const std::string& line) {
  const std::string command = "B=" + std::string(kBinaryDir) + "; " + line;
  const int status = std::system(("exec 9>/dev/null; bash -c '" + command + "' 2>&9").c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/// Nothing that was meant for a stream is in the run's files.
void only_what_belongs(const std::string& run) {
  const std::string lock = read_file(run + "/lock"), log = read_file(run + "/run.log"),
                    metrics = read_file(run + "/metrics.jsonl");
  CHECK(lock.find('\n') == std::string::npos);
  CHECK(contains(lock, " on "));
  CHECK(metrics.find("{\"type\":\"run\"") == 0);
  for (std::size_t at = 0; (at = metrics.find('\n', at)) != std::string::npos && ++at < metrics.size();)
    CHECK(metrics[at] == '{');
  CHECK(log.find(" info  saved ") != std::string::npos);
  CHECK(!contains(log, "run 1/2"));  // the progress of a comparison
}

}  // namespace

TEST_CASE("an error whose sentence cannot be written keeps its exit code, in every program", "[streams]") {
  for (const char* where : {"2>&-", "2>/dev/full", "0<&- 1>&- 2>&-"}) {
    INFO(where);
    CHECK(shell(std::string("$B/nsa train nope.json ") + where) == 2);
    CHECK(shell(std::string("$B/nsa nonsense ") + where) == 2);
    CHECK(shell(std::string("$B/nsa ") + where) == 2);
    CHECK(shell(std::string("$B/tokenize ") + where) == 2);
    CHECK(shell(std::string("$B/tokenize /nowhere --tokenizer bytes --out x ") + where) == 1);
    CHECK(shell(std::string("$B/train_tokenizer --nonsense ") + where) == 2);
    CHECK(shell(std::string("$B/inspect_shard /nowhere ") + where) == 1);
  }
}

TEST_CASE("printed results that are lost are an error; a reader that has seen enough is none", "[streams]") {
  for (const char* command : {"$B/nsa config --reference", "$B/nsa config --schema", "$B/nsa --help",
                              "$B/nsa --version", "$B/nsa train --help", "$B/tokenize --help"}) {
    INFO(command);
    CHECK(shell(command + std::string(" >/dev/full")) == 1);
    CHECK(shell(command + std::string(" >&-")) == 1);
    CHECK(shell(command + std::string(" | true; exit ${PIPESTATUS[0]}")) == 0);
  }
}

TEST_CASE("a run goes on and ends well wherever its lines go", "[streams]") {
  const Workplace place(12);
  int n = 0;
  for (const char* where : {">/dev/full 2>&1", ">&- 2>&-", "0<&- 1>&- 2>&-", "2>&1 | true; exit ${PIPESTATUS[0]}"}) {
    INFO(where);
    const std::string name = "run" + std::to_string(n++);
    CHECK(shell("$B/nsa train " + place.config + " log.name=" + name + " " + where) == 0);
    CHECK((place.weights(name, 12) == place.weights("run0", 12)));
    only_what_belongs(place.dir / "runs/" + name);
  }
}

TEST_CASE("a comparison writes nothing of its progress into the runs' files when the streams are closed", "[streams]") {
  const Workplace place(8);
  for (const char* where : {"2>&-", "1>&-", "0<&- 1>&- 2>&-"}) {
    INFO(where);
    const TempDir out;
    CHECK(shell("$B/nsa compare " + place.config + " " + place.full + " --out " + out.path() + " " + where) == 0);
    for (const char* run : {"/runs/tiny_seed1", "/runs/tiny_full_seed1"}) only_what_belongs(out.path() + run);
  }
}

TEST_CASE("shards are whole when stdout and stderr are closed or nobody reads them", "[streams]") {
  const Workplace place;
  const std::string whole = read_file(place.dir / "tiny_train_000000.bin");
  int n = 0;
  for (const char* where : {"0<&- 1>&- 2>&-", ">/dev/full 2>&1", "2>&1 | true; exit ${PIPESTATUS[0]}"}) {
    INFO(where);
    const std::string prefix = place.dir / ("again" + std::to_string(n++));
    CHECK(shell("$B/tokenize " + (place.dir / "text.txt") + " --tokenizer bytes --val-fraction 0 --out " + prefix +
                " " + where) == 0);
    CHECK((read_file(prefix + "_train_000000.bin") == whole));
  }
}

TEST_CASE("a file larger than the limit of the shell (SIGXFSZ) is a sentence", "[streams]") {
  const Workplace place;
  const std::string out = place.dir / "out";
  CHECK(shell("ulimit -f 4; $B/tokenize " + (place.dir / "text.txt") + " --tokenizer bytes --out " +
              (place.dir / "small") + " >" + out + " 2>" + out) == 1);
  CHECK(contains(read_file(out), "tokenize: error: "));
  CHECK(contains(read_file(out), "File too large"));
}
