// Runs one exported classifier in TensorRT: classifies an image, or checks and times an engine.
#include <chrono>
#include <cstdio>
#include <iostream>
#include <limits>
#include <map>
#include <set>

#include "engine.h"
#include "failure.h"
#include "files.h"
#include "model_spec.h"
#include "preprocess.h"
#include "results.h"

namespace {

const char kUsage[] =
    "usage: dskd_runner classify --engine FILE IMAGE [--iterations N] [--warmup N] [--data FOLDER]\n"
    "       dskd_runner golden --engine FILE [--batch N] [--tolerance X] [--data FOLDER]\n"
    "       dskd_runner preprocess IMAGE --out FILE\n"
    "\n"
    "IMAGE is one of\n"
    "  --image FILE                       a binary PPM (P6), 8 bits a channel, of any size\n"
    "  --raw FILE --width N --height N    RGB pixels, 8 bits a channel, of any size\n"
    "  --tensor FILE                      what preprocess writes: the model's input as it is (not for preprocess)\n"
    "\n"
    "classify    prints the top five classes, and the time of a call from host memory to host memory\n"
    "golden      compares the engine with the reference's logits; exit code 5 where they differ\n"
    "preprocess  writes the model's input; needs no GPU\n"
    "\n"
    "--data is the folder of labels.txt, golden_input.bin and golden_logits.bin; default: the current one.\n"
    "Exit codes: 0 fine, 2 command line, 3 file or model, 4 this machine, 5 the engine differs.\n";

const char kUpright[] =
    "This model expects photos turned upright by the orientation in their EXIF, which IMAGE does not carry: turn them\n"
    "before, for example with magick photo.jpg -auto-orient -depth 8 photo.ppm\n";
const char kAsStored[] = "This model expects pixels as stored: do not turn photos by the orientation in their EXIF.\n";

using Options = std::map<std::string, std::string>;

Failure usage(const std::string& message) { return Failure(ExitCode::usage, message, "See: dskd_runner --help"); }

// What each command takes, and what it cannot do without.
struct Command {
  std::set<std::string> required;
  std::set<std::string> optional;
};

const std::map<std::string, Command>& commands() {
  static const std::map<std::string, Command> all{
      {"classify",
       {{"--engine"},
        {"--image", "--raw", "--width", "--height", "--tensor", "--iterations", "--warmup", "--data"}}},
      {"golden", {{"--engine"}, {"--batch", "--tolerance", "--data"}}},
      {"preprocess", {{"--out"}, {"--image", "--raw", "--width", "--height"}}},
  };
  return all;
}

Options parse(const std::string& name, int count, char** words) {
  const auto found = commands().find(name);
  if (found == commands().end()) throw usage("There is no command '" + name + "'.");
  const Command& command = found->second;
  Options options;
  for (int i = 0; i < count; i += 2) {
    const std::string option = words[i];
    if (command.required.count(option) + command.optional.count(option) == 0) {
      throw usage(name + " has no option '" + option + "'.");
    }
    if (i + 1 == count) throw usage(option + " needs a value.");
    if (!options.emplace(option, words[i + 1]).second) throw usage(option + " is given twice.");
  }
  for (const std::string& option : command.required) {
    if (options.count(option) == 0) throw usage(name + " needs " + option + ".");
  }
  return options;
}

std::string get(const Options& options, const std::string& name, const std::string& otherwise) {
  const auto found = options.find(name);
  return found == options.end() ? otherwise : found->second;
}

double number(const Options& options, const std::string& name, double otherwise, double least) {
  const auto found = options.find(name);
  if (found == options.end()) return otherwise;
  std::size_t read = 0;
  double value = 0;
  try {
    value = std::stod(found->second, &read);
  } catch (const std::exception&) {
    read = 0;
  }
  if (read == 0 || read != found->second.size() || !(value >= least) || !(value <= 1e9)) {
    throw usage(name + " is '" + found->second + "', and must be a number from " +
                std::to_string(static_cast<int>(least)) + " on.");
  }
  return value;
}

int whole(const Options& options, const std::string& name, int otherwise, int least) {
  const double value = number(options, name, otherwise, least);
  if (value != static_cast<int>(value)) throw usage(name + " must be a whole number.");
  return static_cast<int>(value);
}

std::vector<std::uint8_t> input_of(const Options& options) {
  const int given = static_cast<int>(options.count("--image") + options.count("--raw") + options.count("--tensor"));
  if (given != 1) throw usage("Give one image: --image, --raw or --tensor.");
  if (options.count("--raw") != (options.count("--width") + options.count("--height")) / 2.0) {
    throw usage("--raw, --width and --height go together.");
  }
  if (options.count("--tensor")) {
    const std::size_t values = static_cast<std::size_t>(spec::preprocessing.height) * spec::preprocessing.width * 3;
    return read_exactly(options.at("--tensor"), values * (spec::preprocessing.uint8 ? 1 : sizeof(float)),
                        "an input of this model");
  }
  const Image image = options.count("--image")
                          ? read_ppm(options.at("--image"))
                          : read_raw(options.at("--raw"), whole(options, "--width", 0, 1),
                                     whole(options, "--height", 0, 1));
  return preprocess(image, spec::preprocessing);
}

int run_preprocess(const Options& options) {
  const std::vector<std::uint8_t> input = input_of(options);
  write_bytes(options.at("--out"), input);
  std::printf("%s: %zu bytes, %s %s, %dx%d\n", options.at("--out").c_str(), input.size(),
              spec::preprocessing.uint8 ? "uint8" : "float32", spec::preprocessing.channels_last ? "HWC" : "CHW",
              spec::preprocessing.width, spec::preprocessing.height);
  return 0;
}

int run_classify(const Options& options) {
  const std::string folder = get(options, "--data", ".");
  const std::vector<std::string> labels = read_labels(folder + "/labels.txt", spec::classes);
  const int iterations = whole(options, "--iterations", 200, 1);
  const int warmup = whole(options, "--warmup", 20, 0);
  const std::vector<std::uint8_t> image = input_of(options);
  Engine engine(options.at("--engine"));

  // An engine for larger batches alone gets the image as often as it needs it.
  const int batch = engine.least_batch();
  std::vector<std::uint8_t> input;
  for (int i = 0; i < batch; ++i) input.insert(input.end(), image.begin(), image.end());
  std::vector<float> outputs;
  std::vector<double> latencies_ms;
  for (int i = 0; i < warmup + iterations; ++i) {
    const auto began = std::chrono::steady_clock::now();
    outputs = engine.infer(input, batch);
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - began;
    if (i >= warmup) latencies_ms.push_back(took.count());
  }
  outputs.resize(spec::classes);
  const std::vector<float> logits = logits_of(outputs, spec::probabilities);
  const std::vector<double> shares = probabilities_of(logits);
  for (const std::size_t index : largest(logits, 5)) {
    std::printf("%8.4f %%  %s\n", 100 * shares[index], labels[index].c_str());
  }
  std::printf("TensorRT %s, batch %d, %d calls after %d: p50 %.3f ms, p90 %.3f ms, p95 %.3f ms, p99 %.3f ms\n",
              tensorrt_version().c_str(), batch, iterations, warmup, percentile(latencies_ms, 0.5),
              percentile(latencies_ms, 0.9), percentile(latencies_ms, 0.95), percentile(latencies_ms, 0.99));
  return 0;
}

int run_golden(const Options& options) {
  const std::string folder = get(options, "--data", ".");
  const double tolerance = number(options, "--tolerance", spec::tolerance, 0);
  const std::size_t values = static_cast<std::size_t>(spec::preprocessing.height) * spec::preprocessing.width * 3;
  const std::size_t image_size = values * (spec::preprocessing.uint8 ? 1 : sizeof(float));
  const std::vector<std::uint8_t> input = read_exactly(folder + "/golden_input.bin",
                                                       image_size * spec::golden_images, "the golden input");
  const std::vector<float> reference =
      read_floats(folder + "/golden_logits.bin", static_cast<std::size_t>(spec::golden_images) * spec::classes,
                  "the golden logits");
  Engine engine(options.at("--engine"));
  const int batch = whole(options, "--batch", engine.least_batch(), 1);

  std::vector<float> outputs;
  for (int done = 0; done < spec::golden_images; done += batch) {
    // The last call repeats the last image where it has too few: an engine may not take less.
    std::vector<std::uint8_t> images;
    const int real = std::min(batch, spec::golden_images - done);
    for (int i = 0; i < batch; ++i) {
      const auto from = input.begin() + static_cast<std::ptrdiff_t>(image_size * (done + std::min(i, real - 1)));
      images.insert(images.end(), from, from + static_cast<std::ptrdiff_t>(image_size));
    }
    const std::vector<float> answer = engine.infer(images, batch);
    outputs.insert(outputs.end(), answer.begin(), answer.begin() + static_cast<std::ptrdiff_t>(real) * spec::classes);
  }
  const Comparison result = compare(reference, logits_of(outputs, spec::probabilities), spec::classes);
  if (!result.finite) {
    throw Failure(ExitCode::gate, "The engine gives NaN or Inf on the golden input.",
                  "Build it from a model of another precision.");
  }
  const double measured = spec::judged_by_largest ? result.max_abs_relative : result.mean_abs_relative;
  std::printf("golden: %zu images, batch %d, largest difference / scale %.2e, mean difference / scale %.2e, "
              "same first class %zu of %zu\n",
              result.images, batch, result.max_abs_relative, result.mean_abs_relative, result.agree, result.images);
  const char* name = spec::judged_by_largest ? "largest" : "mean";
  if (!(measured <= tolerance)) {
    char text[160];
    std::snprintf(text, sizeof text, "The %s difference of logits is %.2e of their scale; %.2e is allowed for %s.",
                  name, measured, tolerance, spec::precision);
    throw Failure(ExitCode::gate, text, "Check that the engine was built from this bundle's model.");
  }
  std::printf("PASS: %s difference / scale %.2e <= %.2e\n", name, measured, tolerance);
  return 0;
}

int run(int count, char** words) {
  const std::string command = count > 1 ? words[1] : "";
  if (command == "--help" || command == "-h") {
    std::cout << kUsage << (spec::applies_exif ? kUpright : kAsStored);
    return 0;
  }
  if (command.empty()) throw usage("A command is missing: classify, golden or preprocess.");
  const Options options = parse(command, count - 2, words + 2);
  if (command == "preprocess") return run_preprocess(options);
  return command == "classify" ? run_classify(options) : run_golden(options);
}

}  // namespace

int main(int count, char** words) {
  try {
    return run(count, words);
  } catch (const Failure& failure) {
    std::cout.flush();
    std::cerr << "error: " << failure.what() << "\nhint: " << failure.hint << "\n";
    return static_cast<int>(failure.code);
  } catch (const std::exception& error) {
    std::cerr << "error: this is a bug in dskd_runner: " << error.what() << "\n";
    return 1;
  }
}
