// Whether kernels can overlap on a GPU, which only shows in their time where it is lost.
#ifdef DAMOYOLO_CUDA

#include <array>

#include "kernels/epilogue.h"
#include "tests/kernels/device_tensor.h"

using namespace damoyolo;
using namespace damoyolo::kernels;

namespace {

cudaError_t edges_of(cudaGraph_t graph, cudaGraphNode_t* from, cudaGraphNode_t* to, cudaGraphEdgeData* kinds,
                     std::size_t* count) {
#if CUDART_VERSION >= 13000
  return cudaGraphGetEdges(graph, from, to, kinds, count);
#else
  return cudaGraphGetEdges_v2(graph, from, to, kinds, count);
#endif
}

}  // namespace

TEST_CASE("gpu: kernels made for 9.0 can overlap, which in a capture is an edge of another kind") {
  if (!can_run(90)) return;
  REQUIRE(can_overlap());
  const Size size{1, 8, 8, 8};
  const DeviceTensor a(DType::F32, size, {}, 1), b(DType::F32, size, {}, 2);
  launch_epilogue(a.view(), b.view(), {}, {});  // is loaded
  check(cudaDeviceSynchronize(), "test");

  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "test");
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "test");
  launch_epilogue(a.view(), b.view(), {}, {stream, false});
  launch_epilogue(b.view(), a.view(), {}, {stream, true});
  launch_epilogue(a.view(), b.view(), {}, {stream, false});
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(stream, &graph), "test");

  std::array<cudaGraphNode_t, 2> nodes{}, from{}, to{};
  std::array<cudaGraphEdgeData, 2> kinds{};
  std::size_t roots = nodes.size(), count = kinds.size();
  check(cudaGraphGetRootNodes(graph, nodes.data(), &roots), "test");
  check(edges_of(graph, from.data(), to.data(), kinds.data(), &count), "test");
  CHECK(roots == 1);
  REQUIRE(count == 2);
  for (std::size_t i = 0; i < count; ++i) {
    const bool first = from[i] == nodes[0];
    CHECK(kinds[i].type == (first ? cudaGraphDependencyTypeProgrammatic : cudaGraphDependencyTypeDefault));
    CHECK(kinds[i].from_port == (first ? cudaGraphKernelNodePortProgrammatic : cudaGraphKernelNodePortDefault));
  }
  check(cudaGraphDestroy(graph), "test");
  check(cudaStreamDestroy(stream), "test");
}

#endif
