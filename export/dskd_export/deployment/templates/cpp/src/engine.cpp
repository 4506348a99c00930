#include "engine.h"

#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <iostream>

#include "failure.h"
#include "files.h"
#include "model_spec.h"

namespace {

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::OptProfileSelector;
using nvinfer1::TensorIOMode;

const std::string kRebuild = "Build the engine on this machine, with the TensorRT that is installed: see README.md.";

// TensorRT says why it fails in its log alone: errors and warnings are shown, as they come.
class Logger : public nvinfer1::ILogger {
 public:
  void log(Severity severity, char const* message) noexcept override {
    if (severity <= Severity::kWARNING) std::cerr << "TensorRT: " << message << "\n";
  }
};

void check(cudaError_t status, const std::string& what) {
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

Failure not_this_model(const std::string& path, const std::string& why) {
  return Failure(ExitCode::data, path + " is no engine of " + spec::architecture + ": " + why,
                 "Build it from the bundle that this program was generated from.");
}

// One image, without the batch.
std::vector<std::int64_t> image_shape() {
  if (spec::preprocessing.channels_last) return {spec::preprocessing.height, spec::preprocessing.width, 3};
  return {3, spec::preprocessing.height, spec::preprocessing.width};
}

std::size_t image_size() {
  const std::size_t values = static_cast<std::size_t>(spec::preprocessing.height) * spec::preprocessing.width * 3;
  return values * (spec::preprocessing.uint8 ? 1 : sizeof(float));
}

Dims input_dims(int batch) {
  Dims dims{};
  for (const std::int64_t side : image_shape()) dims.d[++dims.nbDims] = side;
  dims.d[0] = batch;
  ++dims.nbDims;
  return dims;
}

std::string text(const Dims& dims) {
  std::string result;
  for (int i = 0; i < dims.nbDims; ++i) result += (i > 0 ? "x" : "") + std::to_string(dims.d[i]);
  return result;
}

// Whether a tensor has the shape of a batch of images; -1 stands for any size.
bool holds_images(const Dims& dims) {
  const std::vector<std::int64_t> image = image_shape();
  if (dims.nbDims != static_cast<int>(image.size()) + 1) return false;
  for (std::size_t i = 0; i < image.size(); ++i) {
    if (dims.d[i + 1] != -1 && dims.d[i + 1] != image[i]) return false;
  }
  return true;
}

bool within(const Dims& least, const Dims& dims, const Dims& most) {
  if (least.nbDims != dims.nbDims || most.nbDims != dims.nbDims) return false;
  for (int i = 1; i < dims.nbDims; ++i) {
    if (dims.d[i] < least.d[i] || dims.d[i] > most.d[i]) return false;
  }
  return true;
}

}  // namespace

// Members are destroyed from the last to the first: a context before its engine, an engine before its runtime.
struct Engine::State {
  Logger logger;
  std::unique_ptr<nvinfer1::IRuntime> runtime;
  std::unique_ptr<nvinfer1::ICudaEngine> engine;
  std::unique_ptr<nvinfer1::IExecutionContext> context;
  int least_batch = 1;
  int most_batch = 1;
  std::unique_ptr<Stream> stream;
  std::unique_ptr<HostBuffer> host_input, host_output;
  std::unique_ptr<DeviceBuffer> device_input, device_output;

  void load(const std::string& path);
  void check_tensors(const std::string& path) const;
  void read_profile(const std::string& path);
  void make_buffers();
};

Engine::Engine(const std::string& path) : state_(std::make_unique<State>()) {
  state_->load(path);
  state_->check_tensors(path);
  state_->read_profile(path);
  state_->make_buffers();
}

Engine::~Engine() = default;

int Engine::least_batch() const { return state_->least_batch; }

int Engine::most_batch() const { return state_->most_batch; }

void Engine::State::load(const std::string& path) {
  const std::vector<std::uint8_t> bytes = read_bytes(path);
  runtime.reset(nvinfer1::createInferRuntime(logger));
  if (!runtime) {
    throw Failure(ExitCode::machine, "TensorRT " + tensorrt_version() + " does not start here.",
                  "See dskd-compress doctor: a driver is missing, or too old.");
  }
  engine.reset(runtime->deserializeCudaEngine(bytes.data(), bytes.size()));
  if (!engine) {
    throw Failure(ExitCode::machine,
                  "TensorRT " + tensorrt_version() + " cannot load " + path +
                      ": it is damaged, or was built by another TensorRT or for another GPU.",
                  kRebuild);
  }
}

void Engine::State::check_tensors(const std::string& path) const {
  bool input = false;
  bool output = false;
  for (std::int32_t i = 0; i < engine->getNbIOTensors(); ++i) {
    const char* name = engine->getIOTensorName(i);
    const Dims dims = engine->getTensorShape(name);
    const DataType type = engine->getTensorDataType(name);
    if (engine->getTensorIOMode(name) == TensorIOMode::kINPUT && spec::input_name == std::string(name)) {
      if (type != (spec::preprocessing.uint8 ? DataType::kUINT8 : DataType::kFLOAT) || !holds_images(dims)) {
        throw not_this_model(path, "its input is of another type, or " + text(dims) + ".");
      }
      input = true;
    } else if (engine->getTensorIOMode(name) == TensorIOMode::kOUTPUT && spec::output_name == std::string(name)) {
      if (type != DataType::kFLOAT || dims.nbDims != 2 || dims.d[1] != spec::classes) {
        throw not_this_model(path, "its output is of another type, or " + text(dims) + ".");
      }
      output = true;
    } else {
      throw not_this_model(path, std::string("it has a tensor ") + name + ".");
    }
  }
  if (!input || !output) {
    throw not_this_model(path, std::string("it has no input ") + spec::input_name + ", or no output " +
                                   spec::output_name + ".");
  }
}

void Engine::State::read_profile(const std::string& path) {
  const Dims dims = engine->getTensorShape(spec::input_name);
  if (std::find(dims.d, dims.d + dims.nbDims, -1) == dims.d + dims.nbDims) {
    least_batch = most_batch = static_cast<int>(dims.d[0]);
    return;
  }
  const Dims least = engine->getProfileShape(spec::input_name, 0, OptProfileSelector::kMIN);
  const Dims most = engine->getProfileShape(spec::input_name, 0, OptProfileSelector::kMAX);
  if (!within(least, input_dims(1), most)) {
    throw not_this_model(path, "its first optimization profile takes " + text(least) + " to " + text(most) + ".");
  }
  least_batch = static_cast<int>(least.d[0]);
  most_batch = static_cast<int>(most.d[0]);
}

void Engine::State::make_buffers() {
  context.reset(engine->createExecutionContext());
  if (!context) {
    throw Failure(ExitCode::machine, "TensorRT has no memory for an execution context.", "Free GPU memory.");
  }
  const std::size_t input = image_size() * static_cast<std::size_t>(most_batch);
  const std::size_t output = sizeof(float) * spec::classes * static_cast<std::size_t>(most_batch);
  stream = std::make_unique<Stream>();
  host_input = std::make_unique<HostBuffer>(input);
  host_output = std::make_unique<HostBuffer>(output);
  device_input = std::make_unique<DeviceBuffer>(input);
  device_output = std::make_unique<DeviceBuffer>(output);
  if (!context->setTensorAddress(spec::input_name, device_input->data()) ||
      !context->setTensorAddress(spec::output_name, device_output->data())) {
    throw Failure(ExitCode::machine, "TensorRT does not take the addresses of its tensors.", kRebuild);
  }
}

std::vector<float> Engine::infer(const std::vector<std::uint8_t>& input, int batch) {
  State& s = *state_;
  if (batch < s.least_batch || batch > s.most_batch) {
    throw Failure(ExitCode::usage,
                  "The engine takes " + std::to_string(s.least_batch) + " to " + std::to_string(s.most_batch) +
                      " images in a call, not " + std::to_string(batch) + ".",
                  "Choose another --batch, or build an engine for it.");
  }
  if (input.size() != image_size() * static_cast<std::size_t>(batch)) {
    throw std::logic_error("the input is not a batch of images");
  }
  std::vector<float> output(static_cast<std::size_t>(batch) * spec::classes);
  std::memcpy(s.host_input->data(), input.data(), input.size());
  if (!s.context->setInputShape(spec::input_name, input_dims(batch))) {
    throw Failure(ExitCode::machine, "TensorRT does not take a batch of " + std::to_string(batch) + ".", kRebuild);
  }
  check(cudaMemcpyAsync(s.device_input->data(), s.host_input->data(), input.size(), cudaMemcpyHostToDevice,
                        s.stream->get()),
        "The copy to the GPU");
  if (!s.context->enqueueV3(s.stream->get())) {
    throw Failure(ExitCode::machine, "TensorRT cannot run the engine; its log is above.", kRebuild);
  }
  check(cudaMemcpyAsync(s.host_output->data(), s.device_output->data(), output.size() * sizeof(float),
                        cudaMemcpyDeviceToHost, s.stream->get()),
        "The copy from the GPU");
  check(cudaStreamSynchronize(s.stream->get()), "The run");
  std::memcpy(output.data(), s.host_output->data(), output.size() * sizeof(float));
  return output;
}

std::string tensorrt_version() {
  // Since TensorRT 10: major * 10000 + minor * 100 + patch.
  const std::int32_t version = getInferLibVersion();
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}
