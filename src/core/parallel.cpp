#include "core/parallel.h"

#include <unistd.h>

#include <cstdlib>

namespace nsa {

void bound_thread_spin(char** argv) {
  if (std::getenv("OMP_WAIT_POLICY") || std::getenv("GOMP_SPINCOUNT") || std::getenv("KMP_BLOCKTIME")) return;
  setenv("GOMP_SPINCOUNT", "20000", 1);  // libgomp: some tens of microseconds, enough for the gaps between ops
  setenv("KMP_BLOCKTIME", "1", 1);       // libomp: milliseconds
  execv("/proc/self/exe", argv);         // on failure the program simply goes on with the default
}

}  // namespace nsa
