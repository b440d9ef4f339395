// Source lines of compiled code, for reports about plain accesses.
#pragma once

#include <cstdint>
#include <string>

namespace cuda_on_cpu {

/// A program counter of this program in 31 bits.
std::uint32_t program_counter_number(const void* pc);
/// "attention.cu:88"; without debug information or addr2line the address.
std::string describe_program_counter(std::uint32_t number);

}  // namespace cuda_on_cpu
