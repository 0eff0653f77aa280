// Functions that run on stacks of their own and take turns. AddressSanitizer hears of every change of stacks.
#pragma once

#include <memory>

namespace simt {

class Fiber {
 public:
  // `run` begins at the first resume() and must neither return nor throw; wherever it pauses it may be left for good.
  explicit Fiber(void (*run)());
  ~Fiber();

  // Lets it run until it pauses. For the one stack that is no fiber's.
  void resume();
  // For the fiber itself.
  void pause();

 private:
  struct Stack;
  std::unique_ptr<Stack> stack_;
};

}  // namespace simt
