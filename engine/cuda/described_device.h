// Planning for a GPU that is not here: what kernels its libraries would propose, without a driver.
#pragma once

#include "engine/cuda/library.h"

namespace damoyolo::cuda {

// cuDNN as it is on a device with these properties. It proposes engines and makes their execution plans, but runs
// nothing, and proposes none that it has to compile, for which it needs a driver; nor, by cuDNN 9.19, those that need
// to know how multiprocessors are grouped. cuDNN can do that since 9.8; `cudnn` is null where it is older or missing,
// and the report says so. cuBLASLt asks the device itself and is null in any case.
Libraries libraries_for(const DeviceProperties& properties);

}  // namespace damoyolo::cuda
