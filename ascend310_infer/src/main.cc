// Runs an exported model over preprocessed images with MindSpore Lite; --help tells the flags.

#include <csignal>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <string>

#include "args.h"
#include "files.h"
#include "runner.h"
#include "timing.h"

namespace {
void Run(const Args &args) {
  const Timing timing = RunInference(args);
  CreateFolder(args.time_dir);
  const std::string text = timing.FileText();
  WriteFile(args.time_dir / "test_perform_static.txt", text.data(), text.size());
  std::cout << timing.StdoutLine();
}
}  // namespace

int main(int argc, char **argv) {
  try {
    // A file size limit then ends in our message instead of a signal.
    std::signal(SIGXFSZ, SIG_IGN);
    const Args args = ParseArgs(argc, argv);
    if (args.help) {
      std::cout << Usage();
    } else {
      Run(args);
    }
    if (!std::cout.flush()) throw Failure(kOther, "stdout", "cannot be written");
    return 0;
  } catch (const Failure &failure) {
    std::cerr << "error: " << failure.what() << '\n';
    return failure.exit_code();
  } catch (const std::exception &failure) {
    std::cerr << "error: " << failure.what() << '\n';
  } catch (...) {
    std::cerr << "error: unknown failure\n";
  }
  return kOther;
}
