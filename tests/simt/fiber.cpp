#include "fiber.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#if defined(__SANITIZE_ADDRESS__)
#define SIMT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_ASAN 1
#endif
#endif

#ifdef SIMT_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

#ifdef __x86_64__
// The C library's swapcontext() costs a system call, and AddressSanitizer has it forget what it knew of the stack.
// This keeps on the running stack what a function has to keep, leaves in *from where, and goes on at `to`. The control
// words of the floating-point units are common to all stacks: nobody changes them. Shadow stacks are not switched: this
// file is compiled so that the program has none.
extern "C" void simt_change_stacks(void** from, void* to);
asm(R"(
        .pushsection .text
        .p2align 4
        .type   simt_change_stacks, @function
simt_change_stacks:
        pushq   %rbp
        pushq   %rbx
        pushq   %r12
        pushq   %r13
        pushq   %r14
        pushq   %r15
        movq    %rsp, (%rdi)
        movq    %rsi, %rsp
        popq    %r15
        popq    %r14
        popq    %r13
        popq    %r12
        popq    %rbx
        popq    %rbp
        ret
        .size   simt_change_stacks, . - simt_change_stacks
        .popsection
)");
#else
#include <ucontext.h>
#endif

namespace simt {
namespace {

constexpr std::size_t kStackBytes = 64 * 1024;

// Where a stack's function has stopped.
#ifdef __x86_64__
using Place = void*;

void stop_before(void (*begin)(), std::byte* stack, Place& place) {
  // Six registers, the address to go to, and none to return to, so that `begin` finds the stack as if it were called.
  // The zero in rbp ends the chain of frames for what follows it.
  auto* const end = reinterpret_cast<std::uintptr_t*>(stack + kStackBytes);
  std::fill(end - 8, end, 0);
  end[-2] = reinterpret_cast<std::uintptr_t>(begin);
  place = end - 8;
}
void change_places(Place& from, const Place& to) { simt_change_stacks(&from, to); }
#else
using Place = ucontext_t;  // which must not move

void stop_before(void (*begin)(), std::byte* stack, Place& place) {
  getcontext(&place);
  place.uc_stack.ss_sp = stack;
  place.uc_stack.ss_size = kStackBytes;
  makecontext(&place, begin, 0);
}
void change_places(Place& from, const Place& to) { swapcontext(&from, &to); }
#endif

// A stack as AddressSanitizer knows it, while it does not run.
struct Context {
  Place place{};
  const void* stack = nullptr;
  std::size_t bytes = 0;
  void* fake_stack = nullptr;
};
Context resumer;
Context* left = &resumer;  // the last one

void arrive([[maybe_unused]] Context& here) {
#ifdef SIMT_ASAN
  __sanitizer_finish_switch_fiber(here.fake_stack, &left->stack, &left->bytes);
#endif
}

// for_good: nothing comes back to `from`.
void change(Context& from, Context& to, [[maybe_unused]] bool for_good = false) {
  left = &from;
#ifdef SIMT_ASAN
  __sanitizer_start_switch_fiber(for_good ? nullptr : &from.fake_stack, to.stack, to.bytes);
#endif
  change_places(from.place, to.place);
  arrive(from);
}

}  // namespace

struct Fiber::Stack {
  void (*run)();
  std::unique_ptr<std::byte[]> memory{new std::byte[kStackBytes]};
  Context context{{}, memory.get(), kStackBytes, nullptr};
  bool ends = false;

  static inline Stack* resumed = nullptr;
  static void begin() {
    arrive(resumed->context);
    resumed->run();
  }
};

Fiber::Fiber(void (*run)()) : stack_(new Stack{run}) {
  stop_before(Stack::begin, stack_->memory.get(), stack_->context.place);
}

Fiber::~Fiber() {
  // Where AddressSanitizer looks for uses of variables after a return, it keeps them elsewhere, and frees that place
  // when their stack is left for good.
  if (stack_->context.fake_stack == nullptr) return;
  stack_->ends = true;
  resume();
}

void Fiber::resume() {
  Stack::resumed = stack_.get();
  change(resumer, stack_->context);
}

void Fiber::pause() {
  change(stack_->context, resumer);
  if (stack_->ends) change(stack_->context, resumer, true);
}

}  // namespace simt
