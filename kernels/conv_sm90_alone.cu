#include "kernels/conv_sm90_launch.cuh"

void damoyolo::kernels::conv_sm90::launch_alone(const Convolution& convolution, const ConvConfig& config,
                                                Stream stream) {
  run_one_of<kTilesAlone>(convolution, config, stream);
}
