#include "engine/cuda/library.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <mutex>
#include <string_view>

#include "engine/core/error.h"
#include "engine/cuda/capture_mutex.h"
#include "kernels/cuda_result.h"

namespace damoyolo::cuda {
namespace {

namespace fs = std::filesystem;

void check(cudaError_t status, const char* call) { check_cuda(status, "{} failed", call); }

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

std::vector<fs::path> split_paths(std::string_view list) {
  std::vector<fs::path> paths;
  while (!list.empty()) {
    const auto end = std::min(list.find(':'), list.size());
    if (end > 0) paths.emplace_back(list.substr(0, end));
    list.remove_prefix(std::min(end + 1, list.size()));
  }
  return paths;
}

// The folders in `folder` whose names begin with `prefix`, in order of their names.
std::vector<fs::path> subfolders(const fs::path& folder, std::string_view prefix) {
  std::vector<fs::path> found;
  std::error_code ignored;
  for (fs::directory_iterator entry(folder, ignored), end; entry != end; entry.increment(ignored))
    if (entry->path().filename().string().starts_with(prefix) && entry->is_directory(ignored))
      found.push_back(entry->path());
  std::sort(found.begin(), found.end());
  return found;
}

// Where NVIDIA's packages put libraries under the root of a Python environment.
std::vector<fs::path> package_folders(const fs::path& root) {
  std::vector<fs::path> found;
  for (const fs::path& python : subfolders(root / "lib", "python3"))
    for (const char* packages : {"site-packages", "dist-packages"})
      for (const fs::path& package : subfolders(python / packages / "nvidia", "")) found.push_back(package / "lib");
  return found;
}

struct OpenedLibrary {
  void* handle = nullptr;
  std::string path;    // as the loader knows it
  std::string reason;  // why there is none
};

// The path of the file that a function came from.
std::string path_of(void* library, const char* function) {
  Dl_info info{};
  void* address = dlsym(library, function);
  return address && dladdr(address, &info) && info.dli_fname ? info.dli_fname : "";
}

// Never closed: the libraries have threads and exit handlers of their own. `beside`: folders to look into at last.
OpenedLibrary open_library(const std::vector<std::string>& names, const char* function,
                           const std::vector<fs::path>& beside = {}) {
  const std::vector<fs::path> given = split_paths(environment("DAMOYOLO_CUDA_LIBRARIES"));
  std::vector<fs::path> folders = given.empty() ? library_folders(environment) : given;
  folders.insert(folders.end(), beside.begin(), beside.end());
  std::string reason = "not found";
  std::error_code ignored;
  for (const std::string& name : names) {
    std::vector<std::string> files;
    if (given.empty()) files.push_back(name);
    for (const fs::path& folder : folders)
      if (const fs::path file = folder / name; fs::exists(file, ignored)) files.push_back(file.string());
    for (const std::string& file : files) {
      if (void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL)) return {handle, path_of(handle, function), ""};
      // A file that is there and cannot be opened says more than the loader's path that has none.
      const char* message = dlerror();
      if (message && fs::path(file).is_absolute()) reason = message;
    }
  }
  return {nullptr, "", reason};
}

template <typename Function>
void resolve(const OpenedLibrary& library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library.handle, name));
  if (!function) throw Error("{} has no function {}", library.path, name);
}

// The major version of CUDA that this cuDNN is for; the newest that we know where there is none.
std::size_t cuda_of(const OpenedLibrary& cudnn) {
  void* version = cudnn.handle ? dlsym(cudnn.handle, "cudnnGetCudartVersion") : nullptr;
  return version ? reinterpret_cast<decltype(&::cudnnGetCudartVersion)>(version)() / 1000 : 13;
}

// A library by its names in CUDA 12 and 13, that for `cuda` first.
std::vector<std::string> names_for(const std::string& library, std::size_t cuda) {
  std::vector<std::string> names;
  for (const std::size_t major : {cuda, std::size_t{13}, std::size_t{12}})
    if (std::string name = fmt::format("{}.so.{}", library, major); std::ranges::count(names, name) == 0)
      names.push_back(std::move(name));
  return names;
}

// The library as `set_up` fills it in; null where it was not opened, or `set_up` throws Error. The report says the
// version, which `set_up` returns, or the reason.
template <typename Library, typename SetUp>
std::unique_ptr<Library> set_up_library(const char* name, const OpenedLibrary& opened,
                                        std::vector<std::string>& report, SetUp set_up) {
  try {
    if (!opened.handle) throw Error("{}", opened.reason);
    auto library = std::make_unique<Library>();
    const std::size_t version = set_up(*library);
    report.push_back(
        fmt::format("{} {}.{}.{}: {}", name, version / 10000, version / 100 % 100, version % 100, opened.path));
    return library;
  } catch (const Error& error) {
    report.push_back(fmt::format("{}: {}", name, error.what()));
    return nullptr;
  }
}

// A handle, while no stream is captured.
template <typename Handle, typename Create>
Handle made(const Create& create) {
  const std::scoped_lock lock(capture_mutex());
  Handle handle{};
  create(&handle);
  return handle;
}

#define DAMOYOLO_RESOLVE(function) resolve(opened, #function, functions.function);

// on_device: with a handle on the current device.
std::unique_ptr<CublasLt> open_cublaslt(const OpenedLibrary& opened, std::vector<std::string>& report,
                                        bool on_device) {
  return set_up_library<CublasLt>("cuBLASLt", opened, report, [&](CublasLt& cublaslt) {
    CublasLtFunctions& functions = cublaslt.functions;
    DAMOYOLO_CUBLASLT_FUNCTIONS(DAMOYOLO_RESOLVE)
    const std::size_t version = functions.cublasLtGetVersion();
    if (version < 120000) throw Error("{} is version {}, where 12.0 or later is needed", opened.path, version);
    if (on_device)
      cublaslt.handle = made<cublasLtHandle_t>(
          [&](cublasLtHandle_t* handle) { check(functions, functions.cublasLtCreate(handle), "cublasLtCreate"); });
    return version;
  });
}

// cublaslt: the name by which it calls that. Without it cuDNN would not fail but abort the process.
std::unique_ptr<Cudnn> open_cudnn(const OpenedLibrary& opened, const std::string& cublaslt,
                                  std::vector<std::string>& report, bool on_device) {
  return set_up_library<Cudnn>("cuDNN", opened, report, [&](Cudnn& cudnn) {
    CudnnFunctions& functions = cudnn.functions;
    DAMOYOLO_CUDNN_FUNCTIONS(DAMOYOLO_RESOLVE)
    const std::size_t version = functions.cudnnGetVersion();
    if (version / 10000 != CUDNN_MAJOR)
      throw Error("{} is version {}, where {}.x is needed", opened.path, version, CUDNN_MAJOR);
    if (!dlopen(cublaslt.c_str(), RTLD_NOW | RTLD_LOCAL))
      throw Error("{} calls {}, which was not found", opened.path, cublaslt);
    if (on_device)
      cudnn.handle = made<cudnnHandle_t>(
          [&](cudnnHandle_t* handle) { check(functions, functions.cudnnCreate(handle), "cudnnCreate"); });
    return version;
  });
}

#undef DAMOYOLO_RESOLVE

void load(Libraries& libraries, bool on_device) {
  const OpenedLibrary cudnn = open_library({"libcudnn.so.9"}, "cudnnGetVersion");
  // cuDNN's engines call cuBLASLt and the run-time compiler by name, and find them when they are loaded already.
  const std::vector<std::string> cublaslt = names_for("libcublasLt", cuda_of(cudnn));
  const std::vector<fs::path> beside = folders_beside(cudnn.path);
  libraries.cublaslt =
      open_cublaslt(open_library(cublaslt, "cublasLtGetVersion", beside), libraries.report, on_device);
  open_library(names_for("libnvrtc", cuda_of(cudnn)), "nvrtcVersion", beside);
  libraries.cudnn = open_cudnn(cudnn, cublaslt.front(), libraries.report, on_device);
}

[[noreturn]] void throw_failure(const char* call, const std::string& reason, bool out_of_memory) {
  if (out_of_memory) throw OutOfDeviceMemory("{} failed: {}", call, reason);
  throw Error("{} failed: {}", call, reason);
}

double attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
  return value;
}

}  // namespace

void check(const CudnnFunctions& cudnn, cudnnStatus_t status, const char* call) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  std::array<char, 512> detail{};
  cudnn.cudnnGetLastErrorString(detail.data(), detail.size());
  throw_failure(call, fmt::format("{}{}{}", cudnn.cudnnGetErrorString(status), detail[0] ? " " : "", detail.data()),
                status == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED);
}

void check(const CublasLtFunctions& cublaslt, cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw_failure(call, cublaslt.cublasLtGetStatusString(status), status == CUBLAS_STATUS_ALLOC_FAILED);
}

Cudnn::~Cudnn() {
  if (!handle) return;
  const std::scoped_lock lock(capture_mutex());
  functions.cudnnDestroy(handle);
}

CublasLt::~CublasLt() {
  if (!handle) return;
  const std::scoped_lock lock(capture_mutex());
  functions.cublasLtDestroy(handle);
}

std::vector<fs::path> library_folders(const std::function<std::string(const char*)>& environment) {
  std::vector<fs::path> folders;
  for (const fs::path& toolkit : {fs::path(environment("CUDA_HOME")), fs::path(environment("CUDA_PATH")),
                                  fs::path("/usr/local/cuda"), fs::path("/opt/cuda")})
    if (!toolkit.empty())
      for (const char* folder : {"lib64", "lib", "targets/x86_64-linux/lib"}) folders.push_back(toolkit / folder);

  // The active environment, the user's, and that of each python3 on the path; under "local", what the pip of Debian
  // and Ubuntu installs for all users.
  std::vector<fs::path> roots = {environment("VIRTUAL_ENV"), environment("CONDA_PREFIX")};
  if (const std::string home = environment("HOME"); !home.empty()) roots.push_back(fs::path(home) / ".local");
  std::error_code ignored;
  for (const fs::path& folder : split_paths(environment("PATH")))
    if (fs::exists(folder / "python3", ignored)) {
      roots.push_back(folder.parent_path());
      roots.push_back(folder.parent_path() / "local");
    }
  for (const fs::path& root : roots)
    if (!root.empty())
      for (fs::path& folder : package_folders(root)) folders.push_back(std::move(folder));

  std::vector<fs::path> existing;
  for (fs::path& folder : folders)
    if (fs::is_directory(folder, ignored) && std::find(existing.begin(), existing.end(), folder) == existing.end())
      existing.push_back(std::move(folder));
  return existing;
}

std::vector<fs::path> folders_beside(const fs::path& library) {
  if (library.empty()) return {};
  const fs::path own = library.parent_path(), packages = own.parent_path().parent_path();
  std::vector<fs::path> folders{own};
  if (packages.filename() == "nvidia")
    for (const fs::path& package : subfolders(packages, "")) folders.push_back(package / "lib");
  return folders;
}

Libraries find_libraries() {
  Libraries libraries;
  load(libraries, false);
  return libraries;
}

Libraries open_libraries() {
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  const auto count = [&](cudaDeviceAttr which) { return static_cast<int>(attribute(which, device)); };
  const auto hertz = [&](cudaDeviceAttr which) { return 1e3 * attribute(which, device); };
  Libraries libraries;
  DeviceProperties properties;
  properties.compute_capability =
      10 * count(cudaDevAttrComputeCapabilityMajor) + count(cudaDevAttrComputeCapabilityMinor);
  properties.multiprocessors = count(cudaDevAttrMultiProcessorCount);
  properties.clock = hertz(cudaDevAttrClockRate);
  properties.memory_clock = hertz(cudaDevAttrMemoryClockRate);
  properties.memory_bus_bits = count(cudaDevAttrGlobalMemoryBusWidth);
  properties.l2_bytes = count(cudaDevAttrL2CacheSize);
  properties.shared_bytes = count(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
  libraries.device = device_traits(properties);
  load(libraries, true);
  return libraries;
}

}  // namespace damoyolo::cuda
