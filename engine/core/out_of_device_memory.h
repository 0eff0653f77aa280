// The one error that a caller can mend: with less to do at a time.
#pragma once

#include "engine/core/error.h"

namespace damoyolo {

// There is not enough device memory; a smaller batch may fit.
class OutOfDeviceMemory : public Error {
 public:
  using Error::Error;
};

}  // namespace damoyolo
