// Memory of the GPU, page-locked memory of the host and streams, given back when they go out of scope.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <string>

#include "failure.h"

inline void check(cudaError_t status, const std::string& what) {
  if (status == cudaSuccess) return;
  throw Failure(ExitCode::machine, what + ": CUDA says: " + cudaGetErrorString(status) + ".",
                "See dskd-compress doctor, and free GPU memory.");
}

class DeviceBuffer {
 public:
  explicit DeviceBuffer(std::size_t size) { check(cudaMalloc(&data_, size), "GPU memory"); }
  ~DeviceBuffer() { cudaFree(data_); }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
};

// Page-locked: a copy from or to other memory would not be asynchronous.
class HostBuffer {
 public:
  explicit HostBuffer(std::size_t size) { check(cudaMallocHost(&data_, size), "page-locked memory"); }
  ~HostBuffer() { cudaFreeHost(data_); }
  HostBuffer(const HostBuffer&) = delete;
  HostBuffer& operator=(const HostBuffer&) = delete;
  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
};

class Stream {
 public:
  Stream() { check(cudaStreamCreate(&stream_), "a CUDA stream"); }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};
