#include "engine.h"

#include <NvInfer.h>

#include <algorithm>
#include <cstring>
#include <iostream>

#include "cuda_memory.h"
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

// The batches that one optimization profile takes.
struct Profile {
  std::int32_t index;
  int least, most;
};

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
  std::vector<Profile> profiles;
  std::int32_t current = 0;
  std::unique_ptr<Stream> stream;
  std::unique_ptr<HostBuffer> host_input, host_output;
  std::unique_ptr<DeviceBuffer> device_input, device_output;

  void load(const std::string& path);
  void check_tensors(const std::string& path) const;
  void read_profiles(const std::string& path);
  void make_buffers();
  void choose_profile(int batch);
  int least_batch() const;
  int most_batch() const;
  std::string batches() const;
};

Engine::Engine(const std::string& path) : state_(std::make_unique<State>()) {
  state_->load(path);
  state_->check_tensors(path);
  state_->read_profiles(path);
  state_->make_buffers();
}

Engine::~Engine() = default;

int Engine::least_batch() const { return state_->least_batch(); }

int Engine::most_batch() const { return state_->most_batch(); }

int Engine::State::least_batch() const {
  int least = profiles.front().least;
  for (const Profile& profile : profiles) least = std::min(least, profile.least);
  return least;
}

int Engine::State::most_batch() const {
  int most = profiles.front().most;
  for (const Profile& profile : profiles) most = std::max(most, profile.most);
  return most;
}

std::string Engine::State::batches() const {
  std::string result;
  for (const Profile& profile : profiles) {
    if (!result.empty()) result += ", ";
    result += std::to_string(profile.least);
    if (profile.most != profile.least) result += " to " + std::to_string(profile.most);
  }
  return result;
}

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

void Engine::State::read_profiles(const std::string& path) {
  const Dims dims = engine->getTensorShape(spec::input_name);
  if (std::find(dims.d, dims.d + dims.nbDims, -1) == dims.d + dims.nbDims) {
    const int batch = static_cast<int>(dims.d[0]);
    profiles.push_back({0, batch, batch});
    return;
  }
  std::string taken;
  for (std::int32_t i = 0; i < engine->getNbOptimizationProfiles(); ++i) {
    const Dims least = engine->getProfileShape(spec::input_name, i, OptProfileSelector::kMIN);
    const Dims most = engine->getProfileShape(spec::input_name, i, OptProfileSelector::kMAX);
    taken += (i > 0 ? ", " : "") + text(least) + " to " + text(most);
    if (within(least, input_dims(1), most)) {
      profiles.push_back({i, static_cast<int>(least.d[0]), static_cast<int>(most.d[0])});
    }
  }
  if (profiles.empty()) throw not_this_model(path, "its optimization profiles take " + taken + ".");
}

// Of the profiles that take a batch the one with the least to spare: its kernels were chosen for the closest size.
void Engine::State::choose_profile(int batch) {
  const Profile* best = nullptr;
  for (const Profile& profile : profiles) {
    if (batch < profile.least || batch > profile.most) continue;
    if (best == nullptr || profile.most < best->most) best = &profile;
  }
  if (best == nullptr) {
    throw Failure(ExitCode::usage,
                  "The engine takes " + batches() + " images in a call, not " + std::to_string(batch) + ".",
                  "Choose another --batch, or build an engine for it.");
  }
  if (best->index == current) return;
  if (!context->setOptimizationProfileAsync(best->index, stream->get())) {
    throw Failure(ExitCode::machine, "TensorRT does not change the optimization profile; its log is above.", kRebuild);
  }
  check(cudaStreamSynchronize(stream->get()), "The change of the optimization profile");
  current = best->index;
}

void Engine::State::make_buffers() {
  context.reset(engine->createExecutionContext());
  if (!context) {
    throw Failure(ExitCode::machine, "TensorRT has no memory for an execution context.", "Free GPU memory.");
  }
  const std::size_t input = image_size() * static_cast<std::size_t>(most_batch());
  const std::size_t output = sizeof(float) * spec::classes * static_cast<std::size_t>(most_batch());
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
  s.choose_profile(batch);
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
