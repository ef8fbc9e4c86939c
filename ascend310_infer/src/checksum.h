// Whether a model file is still the one that was exported.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>

// SHA-256 (FIPS 180-4) in lower-case hexadecimal digits.
std::string Sha256(const std::string &content);

// Compares a model with the "sha256" in the .json of its name beside it; a model without one passes. MindSpore Lite
// loads many damaged files without a word and computes something. Throws Failure(kModelFile).
void CheckModelFile(const std::filesystem::path &model);
