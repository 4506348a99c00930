// What goes wrong in a way that its user can act on. The exit codes are those of dskd-compress.
#pragma once

#include <stdexcept>
#include <string>

enum class ExitCode { fine = 0, usage = 2, data = 3, machine = 4, gate = 5 };

struct Failure : std::runtime_error {
  Failure(ExitCode code, const std::string& message, const std::string& hint)
      : std::runtime_error(message), code(code), hint(hint) {}

  ExitCode code;
  std::string hint;
};
