// How the parts of hopper.h's emulation hang together: barriers in hopper.cpp, copies in tensor_copy.cpp, products in
// warpgroup.cpp, and what these may read in proxies.cpp.
#pragma once

#include <cstddef>
#include <cstdint>

namespace simt {

// An Engine's functions for each part.
void start_products();
bool advance_products();
void finish_products();
void start_copies(bool falling);
bool advance_copies();
void finish_copies();

// The running warp has written the 16 bytes by stmatrix; the running thread has called fence_async_shared(); and what
// throws Error, naming the thread, when one that has written them has not since.
void start_writes();
void note_write(const void* unit);
void fence_writes();
void require_fenced(const void* unit);

// That many announced bytes have come to the barrier.
void complete_bytes(std::uint32_t barrier, std::size_t bytes);

// Of the block in the cluster whose memory it is.
std::uint32_t rank_of(std::uint32_t address);

// Throw Error when an instruction of the running thread must not use the address: require_own when it is another
// block's, require_reachable when it is another's that may not have started.
void require_own(std::uint32_t address);
void require_reachable(std::uint32_t address);

}  // namespace simt
