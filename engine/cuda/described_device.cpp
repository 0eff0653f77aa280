#include "engine/cuda/described_device.h"

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/core/error.h"
#include "engine/cuda/cudnn_descriptor.h"

namespace damoyolo::cuda {
namespace {

// The form in which cuDNN writes down a device and reads it again. What DeviceProperties does not have follows from
// the compute capability, is the same for all devices from 7.5 on, or is only for launches.
std::string describe(const DeviceProperties& properties) {
  const int capability = properties.compute_capability;
  const bool large = capability == 80 || capability == 90 || capability / 10 == 10;
  const int threads = large ? 2048 : capability < 80 ? 1024 : 1536;
  const int blocks = large ? 32 : capability < 89 ? 16 : 24;
  constexpr std::int64_t kReserved = 1024;  // shared memory of each block that the system takes
  return nlohmann::json{
      {"deviceVer", 10 * capability},
      {"multiProcessorCount", properties.multiprocessors},
      {"warpSize", 32},
      {"maxSharedMemoryPerBlock", 48 << 10},
      {"maxSharedMemoryPerBlockOptin", properties.shared_bytes - kReserved},
      {"reservedSharedMemoryPerBlock", kReserved},
      {"maxRegistersPerSM", 65536},
      {"regsPerBlock", 65536},
      {"maxCtasPerSM", blocks},
      {"maxThreadsPerBlock", 1024},
      {"maxThreadsPerSM", threads},
      {"maxBlockSize", {1024, 1024, 64}},
      {"maxGridSize", {2147483647, 65535, 65535}},
      {"totalGlobalMem", std::int64_t{16} << 30},
      {"smClockRateKHz", static_cast<std::int64_t>(properties.clock / 1e3)},
      {"memClockRateKHz", static_cast<std::int64_t>(properties.memory_clock / 1e3)},
      {"l2CacheSize", properties.l2_bytes},
      {"supportCoopLaunch", 1},
      {"pciDeviceId", 0},
      {"isTccDriver", 0},
      {"cudaDeviceId", 0},
      {"driverVer", 13000},
      {"deviceName", "described"},
  }
      .dump();
}

}  // namespace

Libraries libraries_for(const DeviceProperties& properties) {
  Libraries libraries = find_libraries();
  libraries.device = device_traits(properties);
  libraries.cublaslt.reset();
  if (libraries.cudnn == nullptr) return libraries;
  const CudnnFunctions& functions = libraries.cudnn->functions;
  if (functions.cudnnGetVersion() < 90800) {
    libraries.report.emplace_back("cuDNN: plans for devices that are not here since 9.8");
    libraries.cudnn.reset();
    return libraries;
  }
  const std::string text = describe(properties);
  auto device = std::make_shared<CudnnDescriptor>(functions, kCudnnDeviceDescriptor);
  device->set(kCudnnDeviceText, std::vector<char>(text.begin(), text.end())).finalize();
  libraries.cudnn->device = std::move(device);
  return libraries;
}

}  // namespace damoyolo::cuda
