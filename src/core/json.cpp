#include "core/json.h"

#include <algorithm>
#include <sstream>
#include <vector>

namespace nsa {

using nlohmann::json;

namespace {

constexpr std::size_t kMaxDepth = 64;
constexpr std::size_t kLongest =
    300;  // of what the library says: it quotes the offending token, which may be the whole file

/// Receives the parser's events. `stream_` is what the parser reads: its position at a key is the end of that key,
/// which the events do not tell.
class TreeBuilder {
 public:
  TreeBuilder(const std::string& text, const std::string& origin, std::istringstream& stream, Exit code,
              KeyLines* lines)
      : text_(text), origin_(origin), stream_(stream), code_(code), lines_(lines) {}

  json take() { return std::move(root_); }

  bool null() { return put(nullptr); }
  bool boolean(bool v) { return put(v); }
  bool number_integer(json::number_integer_t v) { return put(v); }
  bool number_unsigned(json::number_unsigned_t v) { return put(v); }
  bool number_float(json::number_float_t v, const std::string&) { return put(v); }
  bool string(std::string& v) { return put(std::move(v)); }
  bool binary(json::binary_t&) { return false; }
  bool start_object(std::size_t) { return open(json::object()); }
  bool start_array(std::size_t) { return open(json::array()); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }

  bool key(std::string& name) {
    Level& top = stack_.back();
    top.path.resize(top.prefix);
    top.path += name;
    const std::size_t position =
        text_.size() - static_cast<std::size_t>(std::max<std::streamsize>(0, stream_.rdbuf()->in_avail()));
    const std::int64_t line = line_at(position);
    if (top.value->contains(name)) {
      const std::string path = top.path.substr(0, kLongest);
      throw Error(fmt::format("{}, line {}: the key \"{}\" is given twice{}; remove one of them", origin_, line, path,
                              first_line(top.path)),
                  code_);
    }
    if (lines_) (*lines_)[top.path] = line;
    top.next = name;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const json::exception& error) {
    std::string what = error.what();
    // "[json.exception.parse_error.101] parse error at line 3, column 5: syntax error while ...": the line is said in
    // our own words
    if (const std::size_t colon = what.find(": "); colon != std::string::npos) what = what.substr(colon + 2);
    if (what.size() > kLongest) what = what.substr(0, kLongest) + "...";
    position = std::min(position, text_.size());
    const std::size_t line_start = position ? text_.rfind('\n', position - 1) + 1 : 0;  // npos + 1 == 0
    const std::size_t column = std::max<std::size_t>(position - line_start, 1);
    throw Error(fmt::format("{}, line {}, column {}: not valid JSON: {}{}", origin_, line_at(position), column, what,
                            hint(position)),
                code_);
  }

 private:
  struct Level {
    json* value;
    std::string path;    ///< of the member being read
    std::size_t prefix;  ///< length of the part of `path` that is this level's own
    std::string next;    ///< the key whose value comes
  };

  template <class V>
  bool put(V&& value) {
    place(json(std::forward<V>(value)));
    return true;
  }

  json* place(json&& value) {
    if (stack_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    json& top = *stack_.back().value;
    if (top.is_array()) {
      top.push_back(std::move(value));
      return &top.back();
    }
    return &(top[stack_.back().next] = std::move(value));
  }

  bool open(json&& empty) {
    if (stack_.size() >= kMaxDepth)
      throw Error(fmt::format("{}: nested deeper than {} levels", origin_, kMaxDepth), code_);
    std::string path = stack_.empty() ? "" : stack_.back().path + ".";
    const std::size_t prefix = path.size();
    json* value = place(std::move(empty));
    stack_.push_back({value, std::move(path), prefix, {}});
    return true;
  }

  bool close() {
    stack_.pop_back();
    return true;
  }

  /// Keys come in order, so newlines are counted once.
  std::int64_t line_at(std::size_t position) {
    if (position > counted_) {
      line_ += std::count(text_.begin() + static_cast<std::ptrdiff_t>(counted_),
                          text_.begin() + static_cast<std::ptrdiff_t>(position), '\n');
      counted_ = position;
    }
    return line_;
  }

  std::string first_line(const std::string& path) const {
    if (!lines_) return "";
    const auto found = lines_->find(path);
    return found == lines_->end() ? "" : fmt::format(" (first on line {})", found->second);
  }

  /// The two mistakes people make: a comma before a closing bracket, and no comma between two members.
  std::string hint(std::size_t position) const {
    if (position == 0 || position > text_.size()) return "";
    const char last = text_[position - 1];
    std::size_t i = position - 1;
    while (i > 0 && (text_[i - 1] == ' ' || text_[i - 1] == '\n' || text_[i - 1] == '\t' || text_[i - 1] == '\r')) --i;
    if ((last == '}' || last == ']') && i > 0 && text_[i - 1] == ',')
      return fmt::format("; remove the comma before '{}'", last);
    if (position == text_.size() && !stack_.empty())
      return "; the text ends too early, is it cut off or is a bracket not closed?";
    return "";
  }

  const std::string& text_;
  const std::string& origin_;
  std::istringstream& stream_;
  Exit code_;
  KeyLines* lines_;
  json root_;
  std::vector<Level> stack_;
  std::size_t counted_ = 0;
  std::int64_t line_ = 1;
};

}  // namespace

json parse_json(const std::string& text, const std::string& origin, Comments comments, Exit code, KeyLines* lines) {
  std::istringstream stream(text);
  TreeBuilder builder(text, origin, stream, code, lines);
  json::sax_parse(stream, &builder, json::input_format_t::json, true, comments == Comments::allow);
  return builder.take();
}

bool is_utf8(const std::string& text) {
  try {
    json(text).dump();
    return true;
  } catch (const json::exception&) {
    return false;
  }
}

}  // namespace nsa
