#include "kernels/conv_sm90_launch.cuh"

void damoyolo::kernels::conv_sm90::launch_pair(const Convolution& convolution, const ConvConfig& config,
                                               Stream stream) {
  run_one_of<kTilesOfPairs>(convolution, config, stream);
}
