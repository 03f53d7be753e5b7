// Ranks that are threads of the test, so that what ranks do together is tested without a launcher.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <barrier>
#include <functional>
#include <thread>
#include <vector>

#include "erank/train/communicator.h"

namespace erank::train {

class ThreadRanks {
 public:
  explicit ThreadRanks(int size) : barrier_(size), given_(static_cast<size_t>(size)) {}

  class Rank : public Communicator {
   public:
    Rank(ThreadRanks& all, int rank) : all_(all), rank_(rank) {}
    int rank() const override { return rank_; }
    int size() const override { return static_cast<int>(all_.given_.size()); }
    void all_reduce(const at::Tensor& values) override {
      exchange(values, [&] {
        at::Tensor sum = all_.given_[0].clone();
        for (size_t i = 1; i < all_.given_.size(); ++i) sum.add_(all_.given_[i]);
        return sum;
      });
    }
    void broadcast(const at::Tensor& values, int root) override {
      exchange(values, [&] { return all_.given_[static_cast<size_t>(root)].clone(); });
    }
    void barrier() override { all_.barrier_.arrive_and_wait(); }
    void end_all(int) override { FAIL(); }

   private:
    template <class Result>
    void exchange(const at::Tensor& values, const Result& result) {
      const at::NoGradGuard no_grad;
      all_.given_[static_cast<size_t>(rank_)] = values;
      barrier();
      const at::Tensor read = result();
      barrier();  // all have read
      values.copy_(read);
    }
    ThreadRanks& all_;
    int rank_;
  };

 private:
  std::barrier<> barrier_;
  std::vector<at::Tensor> given_;
};

inline void run_ranks(int size, const std::function<void(Communicator& ranks)>& body) {
  ThreadRanks all(size);
  std::vector<std::jthread> threads;
  for (int rank = 0; rank < size; ++rank)
    threads.emplace_back([&all, &body, rank] {
      ThreadRanks::Rank ranks(all, rank);
      body(ranks);
    });
}

}  // namespace erank::train
