// A TensorRT engine of this model. Tensors are found by name, as TensorRT 10 and 11 have it; precision is in the
// engine, which is strongly typed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

class Engine {
 public:
  // Loads an engine and checks its tensors against the spec.
  // Failure: the file cannot be read; TensorRT refuses it here; it is one of another model.
  explicit Engine(const std::string& path);
  ~Engine();

  // Images in one call that the engine takes, at least and at most.
  int least_batch() const;
  int most_batch() const;

  // Runs `batch` images, one behind the other; returns float32 [batch, classes]. Blocks until the copy back is done.
  // Failure: TensorRT or CUDA fails.
  std::vector<float> infer(const std::vector<std::uint8_t>& input, int batch);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Of the library that is loaded, for example 10.16.1.
std::string tensorrt_version();
