# CUDA: the kernels and engine/cuda for the GPU, where nvcc and cuDNN's headers are, and both for the host through
# tests/simt, which needs no CUDA at all.
#
#   kernels                    the device objects, KERNEL_OBJECTS, for CUDA_ARCHS
#   kernel-warnings            every kernel for sm_80 and sm_90a, warnings are errors; prints registers and spills
#   sass-report                registers, spills, tensor-core instructions and more of the device objects; part of
#                              "test" where cuobjdump is
#   $(BUILD)/kernel_tests      tests/kernels and tests/cuda on the host
#   $(BUILD)/cuda_tests        tests/cuda_*: what calls the libraries, against fakes of them, and the layers of
#                              bench/layers on the GPU; needs the libraries' headers
#   $(BUILD)/kernel_tests_gpu  tests/kernels on the GPU
#   $(BUILD)/layer-bench       times the layers of bench/layers on the GPU
#   $(BUILD)/fit-costs         fits what ranks our convolutions to those times
#   $(BUILD)/plan-survey       counts what a GPU would run, without one
#   $(BUILD)/tile-survey       ranks tiles that conv_sm90 is compiled for, and those that it might be
#   gpu-programs, gpu-check    builds, and runs, every test that needs a GPU
#   gpu-sanitize               all tests of kernels on the GPU under compute-sanitizer
#   gpu-bundle                 those programs for a GPU machine that has a clone but can build nothing
#
# Without nvcc, or with CPU_ONLY=1, the library has no CUDA backend, and only the host's tests can be built.

CUDA_HOME  ?= /usr/local/cuda
# sm_80 code runs on 8.6 and 8.9 too, and the PTX of the newest on what came after it. Each architecture adds half a
# minute to a build on two cores; name those you have for code made for them: CUDA_ARCHS="75 80 86 89 90a 100 120".
CUDA_ARCHS ?= $(if $(CI),80 90a,75 80 90a)
NVCC       := $(if $(CPU_ONLY),,$(firstword $(wildcard $(CUDA_HOME)/bin/nvcc) $(shell command -v nvcc)))

# Headers only: the libraries themselves are opened at run time. Both are looked for in Python's environments: the
# active one, the user's, that of each python3 on the path, and where Debian's and Ubuntu's pip installs for all users.
PYTHON_ROOTS  := $(VIRTUAL_ENV) $(CONDA_PREFIX) $(HOME)/.local \
                 $(patsubst %/bin/python3,%,$(wildcard $(addsuffix /python3,$(subst :, ,$(PATH))))) /usr/local
CUDNN_HEADERS := $(wildcard $(addsuffix /cudnn_graph.h, \
                   $(CUDA_HOME)/include $(if $(NVCC),$(dir $(NVCC))../include) \
                   /usr/include /usr/include/$(shell uname -m)-linux-gnu \
                   $(foreach packages,site-packages dist-packages, \
                     $(addsuffix /lib/python3*/$(packages)/nvidia/cudnn/include,$(PYTHON_ROOTS)))))
CUDNN_INCLUDE := $(patsubst %/cudnn_graph.h,%,$(firstword $(CUDNN_HEADERS)))
ifneq ($(NVCC),)
ifeq ($(CUDNN_INCLUDE),)
WITHOUT_CUDA := cuDNN 9 has no headers here
NVCC         :=
endif
else
WITHOUT_CUDA := $(if $(CPU_ONLY),,there is no nvcc)
endif
# gpu-check builds nothing, so that it does not matter there.
ifeq ($(MAKELEVEL)$(filter gpu-check,$(MAKECMDGOALS)),0)
$(if $(WITHOUT_CUDA),$(info CPU only: $(WITHOUT_CUDA)))
endif

KERNEL_SOURCES      := $(wildcard kernels/*.cu kernels/*.cpp)
CUDA_SOURCES        := $(wildcard engine/cuda/*.cpp)
# What the shim can stand in for: all but what talks to the real runtime and libraries.
SIMT_CUDA_SOURCES   := $(patsubst %,engine/cuda/%.cpp,autotune backend ceilings conv_heuristics conv_packing \
                         conv_problem conv_split conv_timing device_traits kernel_choice network own_convolution plan \
                         plan_cache schedule timing uploaded) $(wildcard bench/layers/*.cpp)
KERNEL_TEST_SOURCES := $(wildcard tests/kernels/*.cpp tests/kernels/*.cu) tests/main.cpp
# What the CPU does is the reference.
REFERENCE_SOURCES   := engine/core/dtype.cpp engine/decode.cpp engine/nms.cpp engine/cpu/resize.cpp
SIMT_OBJECTS        := $(patsubst %,$(BUILD)/obj/simt/%.o,$(KERNEL_SOURCES) $(KERNEL_TEST_SOURCES) \
                         $(REFERENCE_SOURCES) $(SIMT_CUDA_SOURCES) $(wildcard tests/simt/*.cpp tests/cuda/*.cpp))

TEST_COMMANDS += $(BUILD)/asan/kernel_tests

$(BUILD)/asan/kernel_tests: FORCE
	+$(SANITIZED) $@

$(BUILD)/kernel_tests: $(SIMT_OBJECTS) $(BUILD)/libdamoyolo.a
	$(CXX) $(LDFLAGS) -o $@ $^ -lfmt -ldl

# Without contraction, arithmetic that kernels mark as rounded step by step is.
SIMT_COMPILE = $(COMPILE) -Itests/simt $(SIMT_LEVEL) -ffp-contract=off -Wno-unknown-pragmas
SIMT_LEVEL  := -O1
$(BUILD)/obj/simt/tests/simt/products.cpp.o: SIMT_LEVEL := -O3
# A program of which one part knows no shadow stack is given none.
$(BUILD)/obj/simt/tests/simt/fiber.cpp.o: FILE_FLAGS := -fcf-protection=none

$(BUILD)/obj/simt/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(SIMT_COMPILE) -x c++ -c -o $@ $<

$(BUILD)/obj/simt/%.cpp.o: %.cpp | $(BUILD)/gen/variants_json.h
	@mkdir -p $(@D)
	$(SIMT_COMPILE) -c -o $@ $<

# Who asks whether there is a CUDA backend.
CUDA_ASKERS := $(call objects,$(patsubst %,engine/%.cpp,ceilings detector device) $(wildcard tests/cuda_*_test.cpp))

ifneq ($(NVCC),)

# The compiler lists compute_90; sm_90a is part of the same support. PTX of the newest lets later devices run too, but
# not with an "a": that is for its own architecture alone.
KNOWN_ARCHS  := $(patsubst compute_%,%,$(shell $(NVCC) --list-gpu-arch))
CHOSEN_ARCHS := $(foreach arch,$(CUDA_ARCHS),$(if $(filter $(arch:%a=%),$(KNOWN_ARCHS)),$(arch)))
GENCODE      := $(foreach arch,$(CHOSEN_ARCHS),-gencode arch=compute_$(arch),code=sm_$(arch)) \
                $(foreach arch,$(lastword $(CHOSEN_ARCHS:%a=%)),-gencode arch=compute_$(arch),code=compute_$(arch))

# Spills are warnings: no kernel has any.
NVCC_WARNINGS := -Xcompiler -Wall,-Wextra $(if $(WERROR),-Werror all-warnings -Xptxas -warn-spills)
NVCCFLAGS     := -std=c++20 -O3 -lineinfo $(NVCC_WARNINGS) -I.

# The runtime is linked statically; it opens the driver itself, so that a machine without one can start the binary.
WITHOUT_SM90A := $(if $(filter 90a,$(CHOSEN_ARCHS)),,-DDAMOYOLO_WITHOUT_SM90A)
CUDA_CPPFLAGS := -isystem $(dir $(NVCC))../include -isystem $(CUDNN_INCLUDE) $(WITHOUT_SM90A)
CUDA_LDLIBS   := -L$(dir $(NVCC))../lib64 -lcudart_static -lrt -ldl

KERNEL_OBJECTS      := $(patsubst %,$(BUILD)/obj/%.o,$(KERNEL_SOURCES))
KERNEL_TEST_OBJECTS := $(patsubst %,$(BUILD)/obj/%.o,$(KERNEL_TEST_SOURCES))

$(BUILD)/kernel_tests_gpu: $(KERNEL_TEST_OBJECTS) $(KERNEL_OBJECTS) $(call objects,$(REFERENCE_SOURCES))
	$(CXX) $(LDFLAGS) -o $@ $^ -lfmt -ldl $(CUDA_LDLIBS)

LIB_OBJECTS += $(KERNEL_OBJECTS) $(call objects,$(CUDA_SOURCES))
LDLIBS      += $(CUDA_LDLIBS)

CUDA_TEST_SOURCES := $(wildcard tests/cuda_*_test.cpp)
TEST_COMMANDS     += $(BUILD)/cuda_tests
LAYER_OBJECTS     := $(call objects,$(wildcard bench/layers/*.cpp))
$(BUILD)/cuda_tests: $(call objects,tests/main.cpp $(CUDA_TEST_SOURCES)) $(LAYER_OBJECTS) $(BUILD)/libdamoyolo.a \
                     | $(BUILD)/faulty/libcudnn.so.9
	$(CXX) $(LDFLAGS) -o $@ $^ $(LDLIBS)
$(BUILD)/faulty/libcudnn.so.9: tests/faulty/cudnn_of_cuda_99.c
	@mkdir -p $(@D)
	$(CC) -shared -fPIC -o $@ $<

bench: $(addprefix $(BUILD)/,layer-bench fit-costs plan-survey tile-survey)
$(BUILD)/layer-bench: $(call objects,bench/layer_bench.cpp) $(LAYER_OBJECTS) $(BUILD)/libdamoyolo.a
$(BUILD)/fit-costs: $(call objects,bench/fit_costs.cpp) $(LAYER_OBJECTS) $(BUILD)/libdamoyolo.a
$(BUILD)/plan-survey: $(call objects,bench/plan_survey.cpp) $(LAYER_OBJECTS) $(BUILD)/libdamoyolo.a
$(BUILD)/tile-survey: $(call objects,bench/tile_survey.cpp) $(LAYER_OBJECTS) $(BUILD)/libdamoyolo.a
$(addprefix $(BUILD)/,layer-bench fit-costs plan-survey tile-survey):
	$(CXX) $(LDFLAGS) -o $@ $^ $(LDLIBS)
$(call objects,$(patsubst %,bench/%.cpp,layer_bench fit_costs plan_survey tile_survey)) $(LAYER_OBJECTS): \
  CPPFLAGS += $(CUDA_CPPFLAGS)

$(KERNEL_OBJECTS) $(KERNEL_TEST_OBJECTS) $(call objects,$(CUDA_SOURCES)): CPPFLAGS += $(CUDA_CPPFLAGS)
$(CUDA_ASKERS): CPPFLAGS += -DDAMOYOLO_CUDA $(CUDA_CPPFLAGS)

$(BUILD)/obj/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(NVCC) $(NVCCFLAGS) $(WITHOUT_SM90A) $(GENCODE) -MD -MP -MF $(@:.o=.d) -c -o $@ $<

.PHONY: kernel-warnings
kernel-warnings:
	@mkdir -p $(BUILD)/obj
	@set -e; for source in $(filter %.cu,$(KERNEL_SOURCES)); do for arch in 80 90a; do \
	  echo "$$source sm_$$arch"; \
	  $(NVCC) $(NVCCFLAGS) -Werror all-warnings -Xptxas -v,-warn-spills -arch=sm_$$arch \
	    -cubin -o $(BUILD)/obj/warnings.cubin $$source; \
	done; done

# The test needs no more than the objects that the programs are linked from.
SCRIPT_TESTS += 'tests/python.sh kernels/sass_report.py $(BUILD)'
.PHONY: sass-report
sass-report: $(filter %.cu.o,$(KERNEL_OBJECTS))
	kernels/sass_report.py $(BUILD)

endif

$(CUDA_ASKERS): $(BUILD)/backends
$(BUILD)/backends: FORCE
	@mkdir -p $(@D)
	@echo $(if $(NVCC),cpu cuda,cpu) | cmp -s - $@ || echo $(if $(NVCC),cpu cuda,cpu) > $@

# What only a GPU can tell. gpu-check builds nothing, so that programs built elsewhere can be brought to the GPU.
.PHONY: gpu-programs gpu-check
GPU_PROGRAMS := $(addprefix $(BUILD)/,damoyolo kernel_tests_gpu network_tests cuda_tests layer-bench network-bench \
                           golden-checkpoint)
gpu-programs: $(GPU_PROGRAMS)

# What is cheapest and what the rest builds upon comes first: single instructions, kernels, layers, networks; at last,
# some of it again under compute-sanitizer. Behind tests/cases.sh stand the seconds of a case and of a row, so that
# kernels that hang leave time for what comes behind them; where many do, the last rows have no turn, for all together
# may take GPU_CHECK_SECONDS. Then the table comes. It fails where there is no GPU, though every case is then skipped.
GPU_CHECK_SECONDS ?= 540
ON_GPU := export CUDA_HOME=$(CUDA_HOME) TESTS_END=$$(($$(date +%s) + $(GPU_CHECK_SECONDS)));
# Of each kind of tile one: with few and many sums for each thread, of 8.0 and of 9.0, of three taps, in turns, pairs,
# pairs in turns.
SANITIZED_TILES := *sm80 128x128x32:*,*sm80 32x32x64:*,*sm90 64x64x64:*,*sm90 128x128x64:*,*sm90 256x128x32*
SANITIZED_TILES := $(SANITIZED_TILES),*sm90 128x128x64 ping-pong: every*,*sm90 128x64x32 then 64: every*
SANITIZED_TILES := $(SANITIZED_TILES),*sm90 128x64x32 then 96 ping-pong: every*
gpu-check:
	@$(ON_GPU) \
	timeout -k 5 60 $(BUILD)/damoyolo doctor --device cuda; gpu=$$?; \
	tests/run.sh "tests/cases.sh 10/60 $(BUILD)/kernel_tests_gpu -tc='instructions:*'" \
	  "tests/cases.sh 10/40 $(BUILD)/kernel_tests_gpu -tce='instructions:*' -sfe='*conv_sm*'" \
	  "tests/cases.sh 10/50 $(BUILD)/kernel_tests_gpu -sf='*conv_sm80*'" \
	  "tests/cases.sh 10/100 $(BUILD)/kernel_tests_gpu -sf='*conv_sm90*'" \
	  "tests/cases.sh 60/120 $(BUILD)/cuda_tests -tc='gpu:*' -tce='*own*'" \
	  "tests/cases.sh 30/100 $(BUILD)/cuda_tests -tc='gpu:*own*' -sfe='*pairs*'" \
	  "tests/cases.sh 30/60 $(BUILD)/cuda_tests -tc='gpu:*' -sf='*pairs*'" \
	  "tests/cases.sh 40/100 $(BUILD)/network_tests -tc='gpu:*' -sf='*golden*'" \
	  "tests/cases.sh 60/100 $(BUILD)/network_tests -tc='gpu:*' -sfe='*golden*'" \
	  $(foreach tool,memcheck racecheck, \
	    "tests/sanitized.sh $(tool) 60/60 $(BUILD)/kernel_tests_gpu -sfe='*conv_sm*'" \
	    "tests/sanitized.sh $(tool) 60/60 $(BUILD)/kernel_tests_gpu -tc='$(SANITIZED_TILES)'"); \
	passed=$$?; \
	[ $$gpu -eq 0 ] || echo 'gpu-check: failed, nothing was checked on a GPU: see what "doctor" says above' >&2; \
	[ $$gpu -eq 0 ] && [ $$passed -eq 0 ]

# All tests of kernels under compute-sanitizer, in no more than the same time, an equal part for each of SANITIZERS.
SANITIZERS ?= memcheck racecheck synccheck
.PHONY: gpu-sanitize
gpu-sanitize:
	@$(ON_GPU) \
	tests/run.sh $(foreach tool,$(SANITIZERS),\
	  "tests/sanitized.sh $(tool) 120/$$(($(GPU_CHECK_SECONDS) / $(words $(SANITIZERS)))) $(BUILD)/kernel_tests_gpu")

# $(BUILD)/gpu.tar.xz: unpacked in build/ there, it makes "make gpu-check BUILD=build/gpu" run. The programs have most
# of their code in common, which a dictionary larger than any of them finds.
.PHONY: gpu-bundle
gpu-bundle: gpu-programs
	rm -rf $(BUILD)/gpu
	mkdir -p $(BUILD)/gpu/lib
	for program in $(GPU_PROGRAMS); do strip -o $(BUILD)/gpu/$${program##*/} $$program; done
	ldd $(GPU_PROGRAMS) | awk '$$1 ~ /^lib(dnnl|fmt|gomp|OpenCL|stdc)/ {print $$3}' | sort -u | \
	  xargs cp -t $(BUILD)/gpu/lib
	tar -C $(BUILD) -c gpu | xz --lzma2=preset=3,dict=64MiB > $(BUILD)/gpu.tar.xz

.PHONY: kernels
kernels: $(KERNEL_OBJECTS)
