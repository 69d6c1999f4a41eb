// Things that come one after the other, for range-based for loops.
#pragma once

#include <cstddef>
#include <iterator>
#include <optional>

namespace matchcut {

/// Gives a class with `std::optional<T> next()` the iterators of a range that can be walked once.
template <class Derived, class T>
class Sequence {
 public:
  /// Walks; ends where next() returns nullopt. next() may throw, and so may ++ and begin().
  class Iterator {
   public:
    using value_type = T;
    using difference_type = std::ptrdiff_t;

    explicit Iterator(Derived* source) : source_(source), value_(source->next()) {}
    T& operator*() const { return *value_; }
    T* operator->() const { return &*value_; }
    Iterator& operator++() {
      value_ = source_->next();
      return *this;
    }
    void operator++(int) { ++*this; }
    bool operator==(std::default_sentinel_t) const { return !value_; }

   private:
    Derived* source_;
    mutable std::optional<T> value_;
  };

  Iterator begin() { return Iterator(static_cast<Derived*>(this)); }
  std::default_sentinel_t end() const { return {}; }
};

}  // namespace matchcut
