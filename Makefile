# Targets:
#   all        build/damoyolo
#   demo       sets up what is missing, builds, and finds the digits in the bundled pictures
#   test       sets up what is missing, builds and runs every test
#   gpu-check  runs what only a GPU can tell, with what gpu-programs built
#   bench      the programs that bench/ measures with
#   fuzz       feeds the file readers random input, a minute each
#   install    copies build/damoyolo to PREFIX/bin; PREFIX is /usr/local
#   setup, format, clean
#
#   make CPU_ONLY=1            leave CUDA out even where nvcc is
#   make CUDA_ARCHS="80 90a"   only these architectures (kernels/rules.mk says which are the default)
#   make WERROR=1              warnings are errors (CI)

BUILD     ?= build
CXXFLAGS  ?= -O2 -g1
# A switch over an enumeration names every case, so that a new one shows where it has to be thought of. GCC 12 warns of
# overlapping copies inside std::string where there are none.
WARNINGS  := -Wall -Wextra -Werror=switch $(if $(WERROR),-Werror) $(if $(findstring clang,$(CXX)),,-Wno-restrict)
OPENMP    := -fopenmp
SANITIZE  :=
CPPFLAGS  += -I. -I$(BUILD) -isystem /usr/include/stb
# Libraries that travel with the programs lie beside them, see gpu-bundle; the older tag serves their own needs too.
LDFLAGS   += $(SANITIZE) $(OPENMP) -pthread -Wl,--disable-new-dtags,-rpath,'$$ORIGIN/lib'
LDLIBS    += -lfmt -ldnnl -ldl
# Objects do not say where the clone lies, so that what ccache keeps serves every clone.
COMPILE    = $(shell command -v ccache) $(CXX) $(CPPFLAGS) -std=c++20 $(CXXFLAGS) $(WARNINGS) $(SANITIZE) \
             $(FILE_FLAGS) $(OPENMP) -pthread -ffile-prefix-map=$(CURDIR)=. -MMD -MP
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(shell nproc)
endif

LIB_SOURCES  := $(wildcard engine/*.cpp engine/core/*.cpp engine/cpu/*.cpp engine/model/*.cpp \
                           engine/passes/*.cpp weights/*.cpp loader/*.cpp)
CLI_SOURCES  := $(wildcard cli/*.cpp)
# tests/cuda_* need CUDA's headers and have a program of their own, see kernels/rules.mk.
TEST_SOURCES := $(filter-out tests/cuda_%,$(wildcard tests/*.cpp))
FUZZ_SOURCES := $(wildcard tests/fuzz/*.cpp)

# Tests of whole networks, see "test" below.
NETWORK_TESTS := $(wildcard $(patsubst %,tests/%_test.cpp,arena audit bench cli coco_eval cpu_network detector \
                                                          device golden graph passes))

objects      = $(patsubst %,$(BUILD)/obj/%.o,$(1))
LIB_OBJECTS := $(call objects,$(LIB_SOURCES))

.PHONY: all setup install demo test bench fuzz format clean
all: $(BUILD)/damoyolo

# The CUDA backend and its kernels add themselves to LIB_OBJECTS, and their tests to TEST_COMMANDS.
-include kernels/rules.mk

$(BUILD)/damoyolo: $(call objects,$(CLI_SOURCES)) $(BUILD)/libdamoyolo.a
	$(CXX) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/tests: $(call objects,$(TEST_SOURCES) $(filter-out cli/main.cpp,$(CLI_SOURCES))) $(BUILD)/libdamoyolo.a
	$(CXX) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/network_tests: $(call objects,tests/main.cpp $(NETWORK_TESTS) $(filter-out cli/main.cpp,$(CLI_SOURCES))) \
                        $(BUILD)/libdamoyolo.a
	$(CXX) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# What tests/cases_test.sh runs.
$(BUILD)/faulty_cases: $(call objects,tests/main.cpp tests/faulty/cases.cpp)
	$(CXX) $(LDFLAGS) -o $@ $^ -ldl

$(BUILD)/network-bench: $(call objects,bench/network_bench.cpp \
                          $(patsubst %,cli/%.cpp,pictures pipeline text thread_pool)) $(BUILD)/libdamoyolo.a
$(BUILD)/golden-checkpoint: $(call objects,bench/golden_checkpoint.cpp) $(BUILD)/libdamoyolo.a
$(BUILD)/network-bench $(BUILD)/golden-checkpoint:
	$(CXX) $(LDFLAGS) -o $@ $^ $(LDLIBS)

bench: all $(BUILD)/network-bench $(BUILD)/golden-checkpoint

$(BUILD)/%_fuzz: $(BUILD)/obj/tests/fuzz/%_fuzz.cpp.o $(BUILD)/libdamoyolo.a
	$(CXX) $(LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(LDLIBS)

$(BUILD)/libdamoyolo.a: $(LIB_OBJECTS)
	@rm -f $@
	ar rcs $@ $^

# Nothing here takes time when it runs, but it does when it is compiled.
TEST_CXXFLAGS := -O1 -g0
$(BUILD)/obj/tests/%.o $(BUILD)/obj/cli/%.o: CXXFLAGS := $(TEST_CXXFLAGS)
$(BUILD)/obj/%.cpp.o: %.cpp | $(BUILD)/gen/variants_json.h $(BUILD)/libraries.found
	@mkdir -p $(@D)
	$(COMPILE) -c -o $@ $<

# Where a PNG's first data chunk is empty, stb copies no bytes to a null pointer: the standard forbids it, nothing else.
$(BUILD)/obj/loader/stb_image.cpp.o: FILE_FLAGS = $(if $(SANITIZE),-fno-sanitize=nonnull-attribute)
# The reference computes whole networks, which takes longer than to compile it better.
$(BUILD)/obj/engine/cpu/reference.cpp.o: FILE_FLAGS = $(if $(SANITIZE),-O1)

# The variant table travels inside the binary: #include "gen/variants_json.h" gives damoyolo::kVariantsJson.
$(BUILD)/gen/variants_json.h: engine/model/variants.json Makefile
	@mkdir -p $(@D)
	@{ printf '#pragma once\n#include <string_view>\nnamespace damoyolo {\n' && \
	   printf 'inline constexpr std::string_view kVariantsJson = R"json(' && cat $< && \
	   printf ')json";\n}  // namespace damoyolo\n'; } > $@

# The commit that reports name; empty outside a repository.
$(call objects,cli/report.cpp bench/layer_bench.cpp): $(BUILD)/gen/commit.h
$(BUILD)/gen/commit.h: FORCE
	@mkdir -p $(@D)
	@commit=$$(git describe --always --dirty --exclude='*' 2> /dev/null); \
	 line="namespace damoyolo { inline constexpr char kCommit[] = \"$$commit\"; }"; \
	 echo "$$line" | cmp -s - $@ || echo "$$line" > $@

$(BUILD)/libraries.found:
	@mkdir -p $(@D)
	@printf '#include <%s>\n' dnnl.hpp fmt/format.h nlohmann/json.hpp CLI/CLI.hpp stb_image.h | \
	 $(CXX) $(CPPFLAGS) -std=c++20 -E -x c++ - -o $@ 2> $@.log || \
	 { sed -n 's/.*fatal error: /missing library: /p' $@.log; echo 'Run "make setup" first.'; exit 1; } >&2
	@: > $@

setup:
	.ci/setup

PREFIX ?= /usr/local
install: all
	install -D $(BUILD)/damoyolo $(DESTDIR)$(PREFIX)/bin/damoyolo

demo:
	.ci/setup
	$(MAKE) all
	$(BUILD)/damoyolo detect weights/demo/*.png -w weights/demo/digits-ns.safetensors --conf 0.4 --iou 0.5 \
	  --out $(BUILD)/demo

# Tests of what meets strangers' bytes or computes addresses run with the address and undefined-behaviour sanitizers;
# those of whole networks run without, because oneDNN's generated code hides from them. Each is built once: building
# takes most of the time. Then the readers are fed random input for a short while.
ASAN_LIB_SOURCES  := $(filter-out %/capabilities.cpp %/ceilings.cpp %/convolution.cpp %/network.cpp %/backend.cpp \
                                  engine/detector.cpp engine/device.cpp engine/cuda/%,$(LIB_SOURCES))
ASAN_TEST_SOURCES := $(filter-out $(NETWORK_TESTS),$(TEST_SOURCES))
TEST_COMMANDS     += $(BUILD)/network_tests $(BUILD)/asan/tests
SCRIPT_TESTS      += 'tests/cases_test.sh $(BUILD)/faulty_cases' 'tests/python.sh tests/reports_test.py' \
                     tests/build_test.sh tests/open_test.sh 'tests/python.sh tests/compare_test.py'
SANITIZED = $(MAKE) CPU_ONLY=1 BUILD=$(BUILD)/asan CXXFLAGS='-O0 -g1' TEST_CXXFLAGS='-O0 -g1' CLI_SOURCES= \
            LIB_SOURCES='$(ASAN_LIB_SOURCES)' TEST_SOURCES='$(ASAN_TEST_SOURCES)' \
            SANITIZE='-fsanitize=address,undefined -fno-sanitize-recover=all'
FUZZED    = $(MAKE) CPU_ONLY=1 BUILD=$(BUILD)/fuzz CXX=clang++ CXXFLAGS='-O1 -g1' OPENMP= \
            LIB_SOURCES='$(FUZZ_LIB_SOURCES)' \
            SANITIZE='-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all'
FUZZ_LIB_SOURCES := $(filter engine/core/% weights/% %/image.cpp %/jpeg_markers.cpp %/stb_image.cpp,$(LIB_SOURCES))
FUZZ_PROGRAMS    := $(patsubst tests/fuzz/%.cpp,$(BUILD)/fuzz/%,$(FUZZ_SOURCES))

test:
	.ci/setup tests $(if $(NVCC),cuda)
	$(MAKE) test-programs
	tests/run.sh $(patsubst $(BUILD)/asan/%,'tests/parallel.sh $(BUILD)/asan/%',$(TEST_COMMANDS)) $(SCRIPT_TESTS) \
	  'tests/fuzz.sh "-runs=30000 -seed=1" $(FUZZ_PROGRAMS)'

fuzz:
	.ci/setup tests
	$(MAKE) fuzz-programs
	tests/run.sh 'tests/fuzz.sh -max_total_time=60 $(FUZZ_PROGRAMS)'

.PHONY: test-programs asan-programs fuzz-programs
test-programs: all $(filter-out $(BUILD)/asan/%,$(TEST_COMMANDS)) $(BUILD)/faulty_cases asan-programs fuzz-programs

asan-programs:
	+$(SANITIZED) $(filter $(BUILD)/asan/%,$(TEST_COMMANDS))

# Nothing is built, and tests/fuzz.sh says so, where clang or its fuzzer is missing.
fuzz-programs:
	@rm -f $(FUZZ_PROGRAMS)
	+@if echo 'extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) { return 0; }' | \
	  clang++ -fsanitize=fuzzer,address -x c++ - -o /dev/null 2> /dev/null; \
	 then $(FUZZED) $(FUZZ_PROGRAMS); else echo 'clang with libFuzzer is not installed'; fi

.PHONY: FORCE
FORCE:

format:
	git ls-files -z '*.h' '*.cpp' '*.cu' '*.cuh' | xargs -0 clang-format -i

clean:
	rm -rf -- $(BUILD)

.SECONDARY:
-include $(shell find $(BUILD)/obj -name '*.d' 2> /dev/null)
