// Instructions of a whole warp that feed and run tensor cores, with the layouts of the PTX ISA. They report what a
// device would fault on.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

namespace simt {

// ldmatrix .x4: lane 8·i + r gives the place of row r of matrix i, 8 16-bit elements; to[i] becomes elements
// 2·(l % 4) and the next one of row l / 4 of matrix i in lane l.
void ldmatrix_x4(unsigned (&to)[4], const void* row, Site site);

// stmatrix .x4: the other way. Rows that share banks count, too.
void stmatrix_x4(void* row, const unsigned (&from)[4], Site site);

// How often rows of one matrix shared banks of shared memory in ldmatrix_x4 and stmatrix_x4, since the program
// started: 0 for one matrix when its rows lie in different units of 16 bytes modulo 128.
std::size_t bank_conflicts();

// mma.sync.m16n8k16 of every pair of fragments, sums[m][n] += a[m] · b[n], for one step of 16 products. One lane's
// part of it: sums are float[rows][columns][4], a is unsigned[rows][4], b is unsigned[columns][2].
struct Mma {
  float (*sums)[4];
  const unsigned (*a)[4];
  const unsigned (*b)[2];
  int rows, columns;
  float (*to_float)(std::uint16_t bits);
};
void mma_16x8x16(Mma& mma, Site site);

inline float (*float_of(__nv_bfloat16))(std::uint16_t) { return damoyolo::float_from_bf16; }
inline float (*float_of(__half))(std::uint16_t) { return damoyolo::float_from_f16; }

// cp.async of the calling thread: 16 bytes, or zeros where not `valid`. Two blocks copy at once, the next two as late
// as a wait allows, so that both a missing wait and a place that is filled too early show.
void copy_16(void* to, const void* from, bool valid);
void commit_copies();
void wait_for_copies(int groups_left);

// A prefetch of bytes to the second-level cache by the thread of number `thread` among those that share it: reads them
// for the first, so that AddressSanitizer sees where they lie. prefetched_bytes() is how many this host thread has
// seen.
void prefetch_l2(const void* from, std::size_t bytes, int thread);
std::size_t prefetched_bytes();

}  // namespace simt
