// TensorRT without a GPU. An "engine" is a text header and pairs of one image and its outputs; enqueueV3 looks every
// image of the batch up and copies the outputs that belong to it, NaN where it knows none.
//
//   STUB-ENGINE
//   tensor HEX_NAME in|out float|half|uint8 RANK SIDE... MIN... MAX...   (one line a tensor)
//   profile HEX_NAME MIN... MAX...   (one line for each further profile of the input)
//   pairs COUNT IMAGE_BYTES OUTPUT_BYTES
//   (a line end, then the pairs)
#include "NvInfer.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

extern "C" void* stub_device_memory(void* address, std::size_t size);

extern "C" std::int32_t getInferLibVersion() noexcept { return 101603; }

namespace nvinfer1 {
namespace {

struct Tensor {
  std::string name;
  TensorIOMode mode;
  DataType type;
  Dims dims;
  std::vector<std::pair<Dims, Dims>> profiles;
};

struct Engine : ICudaEngine {
  std::vector<Tensor> tensors;
  std::size_t image_bytes = 0, output_bytes = 0;
  std::map<std::string, std::string> outputs;
  ILogger* logger = nullptr;
  int contexts = 0;
  const Tensor* find(const char* name) const {
    for (const Tensor& tensor : tensors) {
      if (tensor.name == name) return &tensor;
    }
    return nullptr;
  }
  // A context must not outlive its engine.
  ~Engine() noexcept override {
    if (contexts != 0) std::abort();
  }
};

struct Context : IExecutionContext {
  Engine* engine = nullptr;
  Dims shape{};
  std::size_t profile = 0;
  std::map<std::string, void*> addresses;
  ~Context() noexcept override { --engine->contexts; }
};

struct Runtime : IRuntime {
  ILogger* logger = nullptr;
};

bool fails(const char* what) {
  const char* fault = std::getenv("STUB_FAULT");
  return fault != nullptr && std::string(fault) == what;
}

std::istream& operator>>(std::istream& stream, Dims& dims) {
  for (int i = 0; i < dims.nbDims; ++i) stream >> dims.d[i];
  return stream;
}

}  // namespace

IRuntime* createInferRuntime(ILogger& logger) noexcept {
  if (fails("createInferRuntime")) return nullptr;
  auto* runtime = new Runtime;
  runtime->logger = &logger;
  return runtime;
}

ICudaEngine* IRuntime::deserializeCudaEngine(void const* blob, std::size_t size) noexcept {
  ILogger& logger = *static_cast<Runtime*>(this)->logger;
  std::istringstream stream(std::string(static_cast<const char*>(blob), size));
  std::string word;
  stream >> word;
  if (word != "STUB-ENGINE") {
    logger.log(ILogger::Severity::kINFO, "not to be shown");
    logger.log(ILogger::Severity::kERROR, "magic tag does not match");
    return nullptr;
  }
  auto* engine = new Engine;
  engine->logger = &logger;
  while (stream >> word && word != "pairs") {
    std::string hex, name;
    stream >> hex;
    for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
      name.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
    }
    if (word == "tensor") {
      Tensor tensor{};
      tensor.name = name;
      std::string mode, type;
      stream >> mode >> type >> tensor.dims.nbDims >> tensor.dims;
      tensor.mode = mode == "in" ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
      tensor.type = type == "float" ? DataType::kFLOAT : type == "half" ? DataType::kHALF : DataType::kUINT8;
      engine->tensors.push_back(tensor);
    }
    for (Tensor& tensor : engine->tensors) {
      if (tensor.name != name) continue;
      Dims least = tensor.dims, most = tensor.dims;
      stream >> least >> most;
      tensor.profiles.emplace_back(least, most);
    }
  }
  std::size_t pairs = 0;
  stream >> pairs >> engine->image_bytes >> engine->output_bytes;
  stream.get();
  for (std::size_t i = 0; i < pairs; ++i) {
    std::string image(engine->image_bytes, '\0'), output(engine->output_bytes, '\0');
    stream.read(image.data(), static_cast<std::streamsize>(image.size()));
    stream.read(output.data(), static_cast<std::streamsize>(output.size()));
    engine->outputs[image] = output;
  }
  return engine;
}

std::int32_t ICudaEngine::getNbIOTensors() const noexcept {
  return static_cast<std::int32_t>(static_cast<const Engine*>(this)->tensors.size());
}

char const* ICudaEngine::getIOTensorName(std::int32_t index) const noexcept {
  return static_cast<const Engine*>(this)->tensors[static_cast<std::size_t>(index)].name.c_str();
}

TensorIOMode ICudaEngine::getTensorIOMode(char const* name) const noexcept {
  return static_cast<const Engine*>(this)->find(name)->mode;
}

Dims ICudaEngine::getTensorShape(char const* name) const noexcept {
  return static_cast<const Engine*>(this)->find(name)->dims;
}

DataType ICudaEngine::getTensorDataType(char const* name) const noexcept {
  return static_cast<const Engine*>(this)->find(name)->type;
}

std::int32_t ICudaEngine::getNbOptimizationProfiles() const noexcept {
  return static_cast<std::int32_t>(static_cast<const Engine*>(this)->tensors.front().profiles.size());
}

Dims ICudaEngine::getProfileShape(char const* name, std::int32_t index, OptProfileSelector select) const noexcept {
  const auto& profile = static_cast<const Engine*>(this)->find(name)->profiles[static_cast<std::size_t>(index)];
  return select == OptProfileSelector::kMIN ? profile.first : profile.second;
}

IExecutionContext* ICudaEngine::createExecutionContext(ExecutionContextAllocationStrategy) noexcept {
  if (fails("createExecutionContext")) return nullptr;
  auto* context = new Context;
  context->engine = static_cast<Engine*>(this);
  ++context->engine->contexts;
  return context;
}

bool IExecutionContext::setInputShape(char const* name, Dims const& dims) noexcept {
  Context& context = *static_cast<Context*>(this);
  const Tensor* tensor = context.engine->find(name);
  if (tensor == nullptr || tensor->mode != TensorIOMode::kINPUT || dims.nbDims != tensor->dims.nbDims) return false;
  for (int i = 0; i < dims.nbDims; ++i) {
    const auto& [least, most] = tensor->profiles[context.profile];
    if (dims.d[i] < least.d[i] || dims.d[i] > most.d[i]) return false;
  }
  context.shape = dims;
  return true;
}

bool IExecutionContext::setOptimizationProfileAsync(std::int32_t index, cudaStream_t stream) noexcept {
  Context& context = *static_cast<Context*>(this);
  const auto profiles = context.engine->getNbOptimizationProfiles();
  if (stream == nullptr || index < 0 || index >= profiles || fails("setOptimizationProfileAsync")) return false;
  context.profile = static_cast<std::size_t>(index);
  context.shape = Dims{};  // a shape belongs to its profile
  return true;
}

bool IExecutionContext::setTensorAddress(char const* name, void* data) noexcept {
  Context& context = *static_cast<Context*>(this);
  if (context.engine->find(name) == nullptr || fails("setTensorAddress")) return false;
  context.addresses[name] = data;
  return true;
}

bool IExecutionContext::enqueueV3(cudaStream_t stream) noexcept {
  Context& context = *static_cast<Context*>(this);
  Engine& engine = *context.engine;
  if (stream == nullptr || context.shape.nbDims == 0 || fails("enqueueV3")) {
    engine.logger->log(ILogger::Severity::kERROR, "enqueueV3 failed");
    return false;
  }
  const auto batch = static_cast<std::size_t>(context.shape.d[0]);
  char* input = nullptr;
  char* output = nullptr;
  for (const Tensor& tensor : engine.tensors) {
    void* address = context.addresses.count(tensor.name) ? context.addresses[tensor.name] : nullptr;
    const bool in = tensor.mode == TensorIOMode::kINPUT;
    const std::size_t bytes = batch * (in ? engine.image_bytes : engine.output_bytes);
    (in ? input : output) = static_cast<char*>(stub_device_memory(address, bytes));
  }
  if (input == nullptr || output == nullptr) return false;
  for (std::size_t i = 0; i < batch; ++i) {
    const auto found = engine.outputs.find(std::string(input + i * engine.image_bytes, engine.image_bytes));
    if (found == engine.outputs.end()) {
      std::memset(output + i * engine.output_bytes, 0xff, engine.output_bytes);  // NaN
    } else {
      std::memcpy(output + i * engine.output_bytes, found->second.data(), engine.output_bytes);
    }
  }
  return true;
}

}  // namespace nvinfer1
