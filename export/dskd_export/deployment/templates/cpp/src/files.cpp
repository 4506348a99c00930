#include "files.h"

#include <cctype>
#include <cstring>
#include <fstream>
#include <iterator>

#include "failure.h"

namespace {

// Pillow takes an image of more pixels for a decompression bomb and refuses it.
constexpr long long kMostPixels = 2LL * 89478485;

Failure unreadable(const std::string& path, const std::string& why) {
  return Failure(ExitCode::data, path + ": " + why, "Give a binary PPM (P6) of 8 bits a channel.");
}

void refuse_size(const std::string& path, long long width, long long height) {
  if (width < 1 || height < 1 || width > kMostPixels || height > kMostPixels || width * height > kMostPixels) {
    throw Failure(ExitCode::data,
                  path + ": " + std::to_string(width) + "x" + std::to_string(height) +
                      " pixels are no image that is read here.",
                  "At least one pixel, and at most " + std::to_string(kMostPixels) + ".");
  }
}

// The next number of a PPM's header; white space and comments before it are left out.
long long header_number(const std::vector<std::uint8_t>& file, std::size_t& position, const std::string& path) {
  while (position < file.size()) {
    if (file[position] == '#') {
      while (position < file.size() && file[position] != '\n') ++position;
    } else if (std::isspace(file[position])) {
      ++position;
    } else {
      break;
    }
  }
  long long value = 0;
  const std::size_t first = position;
  while (position < file.size() && std::isdigit(file[position]) && position - first < 10) {
    value = value * 10 + (file[position++] - '0');
  }
  if (position == first) throw unreadable(path, "a number is missing in its header.");
  return value;
}

}  // namespace

std::vector<std::uint8_t> read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<std::uint8_t> bytes;
  try {
    bytes.assign(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  } catch (const std::ios_base::failure&) {
    bytes.clear();  // a folder opens like a file, and fails here
  }
  if (bytes.empty()) throw Failure(ExitCode::data, path + " cannot be read, or is empty.", "Check the path.");
  return bytes;
}

std::vector<std::uint8_t> read_exactly(const std::string& path, std::size_t size, const std::string& what) {
  std::vector<std::uint8_t> bytes = read_bytes(path);
  if (bytes.size() != size) {
    throw Failure(ExitCode::data,
                  path + " has " + std::to_string(bytes.size()) + " bytes; " + what + " has " +
                      std::to_string(size) + ".",
                  "Give a file of this model.");
  }
  return bytes;
}

std::vector<float> read_floats(const std::string& path, std::size_t count, const std::string& what) {
  const std::vector<std::uint8_t> bytes = read_exactly(path, count * sizeof(float), what);
  std::vector<float> values(count);
  std::memcpy(values.data(), bytes.data(), bytes.size());  // Jetson and x86-64 are little-endian
  return values;
}

std::vector<std::string> read_labels(const std::string& path, std::size_t classes) {
  std::ifstream file(path, std::ios::binary);
  std::vector<std::string> labels;
  for (std::string line; std::getline(file, line);) labels.push_back(line);
  if (labels.size() != classes) {
    throw Failure(ExitCode::data,
                  path + " names " + std::to_string(labels.size()) + " classes; the model has " +
                      std::to_string(classes) + ".",
                  "Name the folder of the generated labels.txt: --data FOLDER");
  }
  return labels;
}

Image read_ppm(const std::string& path) {
  const std::vector<std::uint8_t> file = read_bytes(path);
  if (file.size() < 2 || file[0] != 'P' || file[1] != '6') throw unreadable(path, "not a binary PPM.");
  std::size_t position = 2;
  const long long width = header_number(file, position, path);
  const long long height = header_number(file, position, path);
  const long long most = header_number(file, position, path);
  refuse_size(path, width, height);
  if (most != 255) throw unreadable(path, "its largest value is " + std::to_string(most) + " and not 255.");
  ++position;  // the one white space that ends the header
  const std::size_t size = static_cast<std::size_t>(width) * height * 3;
  if (file.size() < position || file.size() - position < size) throw unreadable(path, "it is cut off.");
  const auto begin = file.begin() + static_cast<std::ptrdiff_t>(position);
  return {static_cast<int>(width), static_cast<int>(height),
          std::vector<std::uint8_t>(begin, begin + static_cast<std::ptrdiff_t>(size))};
}

Image read_raw(const std::string& path, int width, int height) {
  refuse_size(path, width, height);
  const std::size_t size = static_cast<std::size_t>(width) * height * 3;
  return {width, height,
          read_exactly(path, size, "an RGB image of " + std::to_string(width) + "x" + std::to_string(height))};
}

void write_bytes(const std::string& path, const std::vector<std::uint8_t>& bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!file.flush()) throw Failure(ExitCode::machine, path + " cannot be written.", "Choose another place.");
}
