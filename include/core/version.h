// What this program is, for --version and the `run` record.
#pragma once

namespace nsa {

/// "0.1"
const char* version();
/// The commit it was built from, with "+changes" when the tree had others; "unknown" outside a git checkout.
const char* commit();

}  // namespace nsa
