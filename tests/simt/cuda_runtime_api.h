// The shim has one header for all of the runtime.
#pragma once

#include <cuda_runtime.h>
