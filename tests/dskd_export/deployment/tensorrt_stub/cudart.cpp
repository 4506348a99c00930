// CUDA without a GPU. Device memory is host memory whose addresses are shifted, so that using one without a copy
// crashes; what was allocated and not freed makes the process end with exit code 99. STUB_FAULT names what fails.
#include "cuda_runtime_api.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <unistd.h>

namespace {

constexpr std::uintptr_t kShift = std::uintptr_t{1} << 62;  // no address that a process can have

struct Ledger {
  std::map<void*, std::size_t> device, host;
  int streams = 0;
  ~Ledger() {
    if (!device.empty() || !host.empty() || streams != 0) _exit(99);
  }
} ledger;

bool fails(const char* what) {
  const char* fault = std::getenv("STUB_FAULT");
  return fault != nullptr && std::string(fault) == what;
}

}  // namespace

// For the stand-in of TensorRT: the bytes behind a device address of at least this size, or null.
extern "C" void* stub_device_memory(void* address, std::size_t size) {
  const auto found = ledger.device.find(address);
  if (found == ledger.device.end() || found->second < size) return nullptr;
  return reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(address) - kShift);
}

extern "C" {

const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "out of memory" : "an illegal memory access was encountered";
}

cudaError_t cudaMalloc(void** pointer, std::size_t size) {
  if (fails("cudaMalloc")) return cudaErrorMemoryAllocation;
  *pointer = reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(std::malloc(size)) + kShift);
  ledger.device[*pointer] = size;
  return cudaSuccess;
}

cudaError_t cudaFree(void* pointer) {
  if (pointer == nullptr) return cudaSuccess;
  std::free(stub_device_memory(pointer, 0));
  ledger.device.erase(pointer);
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** pointer, std::size_t size) {
  *pointer = std::malloc(size);
  ledger.host[*pointer] = size;
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void* pointer) {
  ledger.host.erase(pointer);
  std::free(pointer);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t size, cudaMemcpyKind kind, cudaStream_t) {
  void* device = stub_device_memory(kind == cudaMemcpyHostToDevice ? to : const_cast<void*>(from), size);
  void* host = kind == cudaMemcpyHostToDevice ? const_cast<void*>(from) : to;
  const auto locked = ledger.host.find(host);
  if (device == nullptr || locked == ledger.host.end() || locked->second < size) return cudaErrorIllegalAddress;
  if (kind == cudaMemcpyHostToDevice) {
    std::memcpy(device, host, size);
  } else {
    std::memcpy(host, device, size);
  }
  return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  *stream = reinterpret_cast<cudaStream_t>(&ledger);
  ++ledger.streams;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t) {
  return fails("cudaStreamSynchronize") ? cudaErrorIllegalAddress : cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t) {
  --ledger.streams;
  return cudaSuccess;
}
}
