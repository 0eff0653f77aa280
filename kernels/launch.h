// The one way kernels are launched.
//
// Launchers are host functions that only enqueue work. They may be called from any thread, and while their stream is
// being captured. They throw Error, which names the kernel, for arguments that do not fit each other and for a launch
// that the runtime refuses; what goes wrong while a kernel runs shows at the next synchronisation.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/tensor.h"

namespace damoyolo::kernels {

// Throws Error("kernel NAME expects EXPECTED") unless `holds`.
void require(bool holds, const char* kernel, const char* expected);

// Throws Error naming the kernel and the runtime's reason, OutOfDeviceMemory where that is one (a kernel's code is
// loaded when it is first launched), unless the call succeeded.
void check(cudaError_t result, const char* kernel);

// `view` has data, a type kernels can store, positive sizes, and its channels lie inside the pixel stride.
void require_view(const TensorView& view, const char* kernel);

bool same_size(const TensorView& a, const TensorView& b);  // n, h, w and c

// Blocks of `threads` that cover `items`; throws when there are more than a grid can have.
unsigned blocks_for(std::int64_t items, unsigned threads, const char* kernel);

// Whether Stream::overlap may be set on the current device. The device must be able to, and the code that it was given
// must have been compiled for it: what was compiled for an older one does not wait by itself.
bool can_overlap();

// Lets blocks of a kernel have so much dynamic shared memory on the current device, which may be none. A limit is
// never lowered: it is the kernel's, and another thread, or a captured graph, may need more than this launch.
// Multiprocessors are asked to make all they can of their memory shared memory: one whose L1 has another size must be
// empty before it takes a block, so that kernels which overlap should all want the same.
void prepare_shared_memory(const void* function, std::size_t bytes, const char* kernel);

struct LaunchShape {
  dim3 grid, block;
  std::size_t shared_bytes = 0;  // dynamic
  // Neighbours in x that run at the same time and reach each other's shared memory, 1 to 8; grid.x is a multiple. From
  // compute capability 9.0 on.
  unsigned cluster = 1;
};

template <typename... Parameters>
void launch(const char* name, void (*kernel)(Parameters...), const LaunchShape& shape, Stream stream,
            std::type_identity_t<Parameters>... arguments) {
  if (shape.shared_bytes > 0 || stream.overlap)
    prepare_shared_memory(reinterpret_cast<const void*>(kernel), shape.shared_bytes, name);
  cudaLaunchAttribute attributes[2]{};
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream.handle;
  config.attrs = attributes;
  if (stream.overlap) {
    cudaLaunchAttribute& overlap = attributes[config.numAttrs++];
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
  }
  if (shape.cluster != 1) {
    cudaLaunchAttribute& cluster = attributes[config.numAttrs++];
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = shape.cluster;
    cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  }
  check(cudaLaunchKernelEx(&config, kernel, arguments...), name);
}

}  // namespace damoyolo::kernels
