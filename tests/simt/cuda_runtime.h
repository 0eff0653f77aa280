// Stands in for CUDA's header of the same name when kernels are compiled for the host, so that the same source runs
// in tests without a GPU. Blocks run one after another; the threads of a block are fibers that take turns and change
// only at barriers, in rising order in one block and falling order in the next, so that a missing barrier shows.
// A barrier that not all reach, a shuffle from a lane that takes no part, or an exception fails the launch with a
// message that says where. Device memory is host memory. Nothing here is safe from more than one thread.
//
// The blocks of a cluster run together. One goes on for as long as it can before another's turn comes, so that a
// missing barrier of the cluster shows, too; the threads' order changes from cluster to cluster, and the blocks' from
// two clusters to the next two. Such blocks have dynamic shared memory only: what a kernel declares as __shared__ is
// one variable for all, which nothing here notices.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <set>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

struct CUstream_st;

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
constexpr int warpSize = 32;

using std::max;
using std::min;

namespace simt {

constexpr std::size_t kMaxSharedBytes = 227 * 1024;
constexpr unsigned kMaxCluster = 8;  // blocks

// Set by who plays a capture of a stream on this thread: what takes or gives back memory, or waits, then fails.
inline thread_local bool capturing = false;
// Streams on which a kernel came last; whoever puts other work there, or has them wait, takes them out. In a capture
// no other stream's next kernel may start early: an edge of that kind joins two kernels.
inline thread_local std::set<CUstream_st*> after_kernel;

// The dynamic shared memory of the running block, aligned to 128 bytes, filled with NaN patterns when it starts.
void* dynamic_shared();
std::size_t shared_bytes();

// The same of any block of the running cluster. Throws Error when that block has ended.
void* dynamic_shared_of(int rank);

// Each block of a kernel that may start before the one before it has ended must come here.
void wait_for_predecessors();

// Where in the kernel a barrier or exchange stands.
struct Site {
  const char* file;
  int line;
  bool operator==(const Site&) const = default;
};

void block_barrier(Site site);
bool block_vote(bool value, Site site);  // a barrier; whether any thread gives true
void warp_barrier(unsigned mask, Site site);

// The value that `source` (0..31) gives in this exchange, in which all lanes of `mask` take part.
std::uint64_t exchange(unsigned mask, std::uint64_t value, int source, Site site);
// Bit i: lane i takes part and gives true.
unsigned vote(unsigned mask, bool value, Site site);
int lane();
int thread();             // of the block, 0 and on
int thread_of_cluster();  // the first block's threads are the first
int cluster_rank();       // of the block in its cluster
int cluster_size();       // 1 without a cluster
// Of the running cluster among all that this program has run, 1 and on. A block without one counts as a cluster.
unsigned cluster_number();

// The two halves of a cluster's barrier, where threads that have ended count as arrived. Each warp comes as a whole.
void cluster_arrive(Site site);
void cluster_wait(Site site);
bool cluster_has_met();  // whether all have arrived at its first barrier

// Lets other threads go on until `ready` gives true. `what` names the wait in the report of one that never ends.
void wait_until(const std::function<bool()>& ready, const char* what, Site site);

// Work that goes on beside the threads of a cluster, such as bulk copies.
struct Engine {
  void (*start)(bool falling);  // before each cluster; `falling`: the order in which its threads take turns
  bool (*advance)();            // when no thread can go on: does one piece of work; false when there is none
  void (*finish)();             // after each cluster; throws Error where work is left
};
void attach(const Engine& engine);

// All 32 lanes of a warp meet, each with something of its own; the last to come calls work(lanes), where lanes[i] is
// what lane i brought, and nobody goes on before. For instructions of a whole warp, which would be slow as exchanges.
void meet(void* mine, void (*work)(void* const* lanes), Site site);

template <typename T>
T exchange_as(unsigned mask, T value, int source, Site site) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(std::uint64_t));
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = exchange(mask, bits, source, site);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace simt

#define SIMT_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(SIMT_SITE) { simt::block_barrier({file, line}); }
inline int __syncthreads_or(int value, SIMT_SITE) { return simt::block_vote(value != 0, {file, line}); }
inline void __syncwarp(unsigned mask = ~0u, SIMT_SITE) { simt::warp_barrier(mask, {file, line}); }

// A lane whose source lies outside its segment of `width` lanes gets its own value back.
template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize, SIMT_SITE) {
  const int segment = simt::lane() & ~(width - 1);
  return simt::exchange_as(mask, value, segment + (source & (width - 1)), {file, line});
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = warpSize, SIMT_SITE) {
  const int source = simt::lane() ^ bits;
  const bool inside = source / width <= simt::lane() / width;
  return simt::exchange_as(mask, value, inside ? source : simt::lane(), {file, line});
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize, SIMT_SITE) {
  const int source = simt::lane() - static_cast<int>(delta);
  const bool inside = source >= (simt::lane() & ~(width - 1));
  return simt::exchange_as(mask, value, inside ? source : simt::lane(), {file, line});
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize, SIMT_SITE) {
  const int source = simt::lane() + static_cast<int>(delta);
  const bool inside = source < (simt::lane() & ~(width - 1)) + width;
  return simt::exchange_as(mask, value, inside ? source : simt::lane(), {file, line});
}
inline unsigned __ballot_sync(unsigned mask, bool value, SIMT_SITE) { return simt::vote(mask, value, {file, line}); }
inline bool __any_sync(unsigned mask, bool value, SIMT_SITE) { return simt::vote(mask, value, {file, line}) != 0; }
inline bool __all_sync(unsigned mask, bool value, SIMT_SITE) { return simt::vote(mask, !value, {file, line}) == 0; }

#undef SIMT_SITE

template <typename T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  const T old = *address;
  *address = old + value;
  return old;
}
template <typename T>
T atomicOr(T* address, std::type_identity_t<T> value) {
  const T old = *address;
  *address = old | value;
  return old;
}

inline unsigned atomicInc(unsigned* address, unsigned last) {
  const unsigned old = *address;
  *address = old >= last ? 0 : old + 1;
  return old;
}
inline void __threadfence() {}

inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(std::uint64_t{a} * b >> 32); }
inline int __popc(unsigned bits) { return std::popcount(bits); }
inline int __popcll(unsigned long long bits) { return std::popcount(bits); }
inline int __ffsll(long long bits) {
  return bits == 0 ? 0 : std::countr_zero(static_cast<unsigned long long>(bits)) + 1;
}
inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }

// Rounded once each; compile with -ffp-contract=off to keep it so.
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __expf(float x) { return std::exp(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }

enum cudaError_t {
  cudaSuccess,
  cudaErrorInvalidValue,
  cudaErrorMemoryAllocation,
  cudaErrorInvalidConfiguration,
  cudaErrorLaunchFailure,
  cudaErrorNotSupported,
  cudaErrorStreamCaptureUnsupported
};
using cudaStream_t = CUstream_st*;
inline const cudaStream_t cudaStreamPerThread = reinterpret_cast<cudaStream_t>(2);

enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize, cudaFuncAttributePreferredSharedMemoryCarveout };
enum cudaSharedCarveout { cudaSharedmemCarveoutDefault = -1, cudaSharedmemCarveoutMaxShared = 100 };
enum cudaLaunchAttributeID { cudaLaunchAttributeClusterDimension, cudaLaunchAttributeProgrammaticStreamSerialization };
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  union {
    struct {
      unsigned x, y, z;
    } clusterDim;
    int programmaticStreamSerializationAllowed;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

const char* cudaGetErrorString(cudaError_t error);  // for a failed launch: what went wrong, and where
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
struct cudaFuncAttributes {
  int ptxVersion;
  int maxDynamicSharedSizeBytes;
  int preferredShmemCarveout;
};
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* kernel);
template <typename Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Kernel* kernel) {
  return cudaFuncGetAttributes(attributes, reinterpret_cast<const void*>(kernel));
}
cudaError_t cudaMalloc(void** memory, std::size_t bytes);
cudaError_t cudaFree(void* memory);
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t stream);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaGetDeviceCount(int* count);  // one: this machine
cudaError_t cudaGetDevice(int* device);

enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount,  // few, so that blocks have work
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrComputeCapabilityMinor  // 9.0, since everything up to it is emulated
};
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);

#define CUDART_VERSION 12050
enum cudaDriverEntryPointQueryResult { cudaDriverEntryPointSuccess, cudaDriverEntryPointSymbolNotFound };
constexpr unsigned long long cudaEnableDefault = 0;
cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned version,
                                             unsigned long long flags, cudaDriverEntryPointQueryResult* result);

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);

namespace simt {
// Runs every block of the grid, calling `thread` once per thread.
cudaError_t launch(const cudaLaunchConfig_t& config, const std::function<void()>& thread);
}  // namespace simt

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  return simt::launch(*config, [&] { kernel(arguments...); });
}
