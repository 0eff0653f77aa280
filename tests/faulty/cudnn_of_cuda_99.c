// A libcudnn.so.9 that is made for a CUDA whose other libraries nobody has.
#include <stddef.h>

size_t cudnnGetVersion(void) { return 91900; }
size_t cudnnGetCudartVersion(void) { return 99000; }

#define NEVER_CALLED(function) \
  int function(void) { return 1; }
NEVER_CALLED(cudnnGetErrorString)
NEVER_CALLED(cudnnGetLastErrorString)
NEVER_CALLED(cudnnCreate)
NEVER_CALLED(cudnnDestroy)
NEVER_CALLED(cudnnSetStream)
NEVER_CALLED(cudnnBackendCreateDescriptor)
NEVER_CALLED(cudnnBackendDestroyDescriptor)
NEVER_CALLED(cudnnBackendSetAttribute)
NEVER_CALLED(cudnnBackendGetAttribute)
NEVER_CALLED(cudnnBackendFinalize)
NEVER_CALLED(cudnnBackendExecute)
