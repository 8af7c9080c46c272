// SPDX-License-Identifier: Apache-2.0
// main.c - the test binary: every *_test.c beside the code is linked into it and adds itself.
#include "base/test.h"

int main(int argc, char **argv) { return test_main(argc, argv); }
