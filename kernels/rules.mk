# Kernels: for the GPU, where nvcc is, and for the host through tests/simt, which needs no CUDA at all.
#
#   kernels                    the device objects, KERNEL_OBJECTS, for CUDA_ARCHS; link them with CUDA_LDLIBS
#   kernel-warnings            every kernel for sm_80 and sm_90a, warnings are errors; prints registers and spills
#   $(BUILD)/kernel_tests      tests/kernels on the host
#   $(BUILD)/kernel_tests_gpu  the same tests on the GPU
#
# Without nvcc, or with CPU_ONLY=1, KERNEL_OBJECTS is empty and only the host's tests can be built.

CUDA_HOME  ?= /usr/local/cuda
CUDA_ARCHS ?= 75 80 86 89 90a 100 120
NVCC       := $(if $(CPU_ONLY),,$(firstword $(wildcard $(CUDA_HOME)/bin/nvcc) $(shell command -v nvcc)))

KERNEL_SOURCES      := $(wildcard kernels/*.cu kernels/*.cpp)
KERNEL_TEST_SOURCES := $(wildcard tests/kernels/*.cpp) tests/main.cpp
# What the CPU does is the reference.
REFERENCE_SOURCES   := engine/core/dtype.cpp engine/decode.cpp engine/nms.cpp engine/cpu/resize.cpp
SIMT_OBJECTS        := $(patsubst %,$(BUILD)/obj/simt/%.o,$(KERNEL_SOURCES) $(KERNEL_TEST_SOURCES) \
                         $(REFERENCE_SOURCES) $(wildcard tests/simt/*.cpp))

TEST_COMMANDS += $(BUILD)/kernel_tests $(BUILD)/asan/kernel_tests

$(BUILD)/asan/kernel_tests: FORCE
	+$(SANITIZED) $@

$(BUILD)/kernel_tests: $(SIMT_OBJECTS)
	$(CXX) $(LDFLAGS) -o $@ $^ -lfmt -ldl

# Without contraction, arithmetic that kernels mark as rounded step by step is.
SIMT_COMPILE = $(COMPILE) -Itests/simt -O1 -ffp-contract=off -Wno-unknown-pragmas

$(BUILD)/obj/simt/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(SIMT_COMPILE) -x c++ -c -o $@ $<

$(BUILD)/obj/simt/%.cpp.o: %.cpp
	@mkdir -p $(@D)
	$(SIMT_COMPILE) -c -o $@ $<

ifneq ($(NVCC),)

# The compiler lists compute_90; sm_90a is part of the same support. PTX of the newest lets later devices run too.
KNOWN_ARCHS  := $(patsubst compute_%,%,$(shell $(NVCC) --list-gpu-arch))
CHOSEN_ARCHS := $(foreach arch,$(CUDA_ARCHS),$(if $(filter $(arch:%a=%),$(KNOWN_ARCHS)),$(arch)))
GENCODE      := $(foreach arch,$(CHOSEN_ARCHS),-gencode arch=compute_$(arch),code=sm_$(arch)) \
                $(foreach arch,$(lastword $(CHOSEN_ARCHS)),-gencode arch=compute_$(arch),code=compute_$(arch))

NVCC_WARNINGS := -Xcompiler -Wall,-Wextra $(if $(WERROR),-Werror all-warnings)
NVCCFLAGS     := -std=c++20 -O3 -lineinfo $(NVCC_WARNINGS) -I.

# The runtime is linked statically; it opens the driver itself, so that a machine without one can start the binary.
CUDA_CPPFLAGS := -isystem $(dir $(NVCC))../include
CUDA_LDLIBS   := -L$(dir $(NVCC))../lib64 -lcudart_static -lrt -ldl

KERNEL_OBJECTS      := $(patsubst %,$(BUILD)/obj/%.o,$(KERNEL_SOURCES))
KERNEL_TEST_OBJECTS := $(patsubst %,$(BUILD)/obj/%.o,$(KERNEL_TEST_SOURCES))

$(BUILD)/kernel_tests_gpu: $(KERNEL_TEST_OBJECTS) $(KERNEL_OBJECTS) $(call objects,$(REFERENCE_SOURCES))
	$(CXX) $(LDFLAGS) -o $@ $^ -lfmt -ldl $(CUDA_LDLIBS)

$(KERNEL_OBJECTS) $(KERNEL_TEST_OBJECTS): CPPFLAGS += $(CUDA_CPPFLAGS)

$(BUILD)/obj/kernels/%.cu.o: kernels/%.cu
	@mkdir -p $(@D)
	$(NVCC) $(NVCCFLAGS) $(GENCODE) -MD -MP -MF $(@:.o=.d) -c -o $@ $<

.PHONY: kernel-warnings
kernel-warnings:
	@mkdir -p $(BUILD)/obj
	@set -e; for source in $(filter %.cu,$(KERNEL_SOURCES)); do for arch in 80 90a; do \
	  echo "$$source sm_$$arch"; \
	  $(NVCC) $(NVCCFLAGS) -Werror all-warnings -Xptxas -v,-warn-spills -arch=sm_$$arch \
	    -cubin -o $(BUILD)/obj/warnings.cubin $$source; \
	done; done

endif

.PHONY: kernels
kernels: $(KERNEL_OBJECTS)
