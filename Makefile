# Targets: all (build/damoyolo), demo, test, bench, clean. See README.md.
#
#   make CPU_ONLY=1            leave CUDA out even where nvcc is
#   make CUDA_ARCHS="80 90a"   only these architectures
#   make WERROR=1              warnings are errors (CI)

BUILD     ?= build
CXX       ?= g++
CXXFLAGS  ?= -O3 -g1
WARNINGS  := -Wall -Wextra $(if $(WERROR),-Werror)
SANITIZE  ?=
CPPFLAGS  += -I. -I$(BUILD) -isystem /usr/include/stb
ALL_CXXFLAGS := -std=c++20 $(CXXFLAGS) $(WARNINGS) $(SANITIZE) -fopenmp -pthread -MMD -MP
LDFLAGS   += $(SANITIZE) -fopenmp -pthread
LDLIBS    += -lfmt -ldnnl -ldl

LIB_SOURCES  := $(wildcard engine/*.cpp engine/*/*.cpp weights/*.cpp loader/*.cpp)
CLI_SOURCES  := $(wildcard cli/*.cpp)
TEST_SOURCES := $(wildcard tests/*.cpp)
GENERATED    := $(BUILD)/gen/variants_json.h

objects = $(patsubst %,$(BUILD)/obj/%.o,$(1))

.PHONY: all
all: $(BUILD)/damoyolo

$(BUILD)/damoyolo: $(call objects,$(CLI_SOURCES)) $(BUILD)/libdamoyolo.a
	$(CXX) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/tests: $(call objects,$(TEST_SOURCES)) $(BUILD)/libdamoyolo.a
	$(CXX) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/libdamoyolo.a: $(call objects,$(LIB_SOURCES))
	@rm -f $@
	ar rcs $@ $^

$(BUILD)/obj/%.cpp.o: %.cpp | $(GENERATED)
	@mkdir -p $(@D)
	$(CXX) $(CPPFLAGS) $(ALL_CXXFLAGS) -c -o $@ $<

# The variant table travels inside the binary: #include "gen/variants_json.h" gives damoyolo::kVariantsJson.
$(BUILD)/gen/variants_json.h: engine/model/variants.json Makefile
	@mkdir -p $(@D)
	{ printf '#pragma once\n#include <string_view>\nnamespace damoyolo {\n' && \
	  printf 'inline constexpr std::string_view kVariantsJson = R"json(' && cat $< && \
	  printf ')json";\n}  // namespace damoyolo\n'; } > $@

-include $(patsubst %.o,%.d,$(call objects,$(LIB_SOURCES) $(CLI_SOURCES) $(TEST_SOURCES)))
