#include "data/json_line.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "data/utf8.h"

namespace nsa::data {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// -12.5e+3, as RFC 8259 has it, of any size.
bool is_number(std::string_view word) {
  std::size_t i = 0;
  const auto digits = [&] {
    const std::size_t begin = i;
    while (i < word.size() && is_digit(word[i])) ++i;
    return i > begin;
  };
  if (word.starts_with('-')) ++i;
  const std::size_t whole = i;
  if (!digits() || (word[whole] == '0' && i > whole + 1)) return false;
  if (i < word.size() && word[i] == '.') {
    ++i;
    if (!digits()) return false;
  }
  if (i < word.size() && (word[i] == 'e' || word[i] == 'E')) {
    ++i;
    if (i < word.size() && (word[i] == '+' || word[i] == '-')) ++i;
    if (!digits()) return false;
  }
  return i == word.size();
}

/// What Python, JavaScript libraries and C's printf write for the numbers that JSON does not have.
bool is_no_finite_number(std::string_view word) {
  if (word.starts_with('-')) word.remove_prefix(1);
  return word == "NaN" || word == "nan" || word == "Infinity" || word == "inf" || word == "Inf";
}

class Scanner {
 public:
  explicit Scanner(std::string_view bytes) : text_(bytes) {}

  bool partial() const { return partial_; }
  std::size_t position() const { return at_; }
  void space() {
    while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != std::string_view::npos) ++at_;
  }
  bool is_at(char c) const { return at_ < text_.size() && text_[at_] == c; }
  bool at_end() const { return at_ == text_.size(); }

  bool skip_value();
  bool object(std::string_view field);

  std::string* text = nullptr;  // where the field's string goes
  bool found = false;
  std::string why;                     // set when the line is broken in the field itself
  std::vector<std::string_view> keys;  // of the outermost object, as written

 private:
  bool wrong() {
    partial_ = at_end();
    return false;
  }
  bool take(char c) {
    if (!is_at(c)) return wrong();
    ++at_;
    return true;
  }
  bool skip_string();
  bool skip_word(std::string_view& word);
  bool key(std::string_view& name);
  bool member(std::string_view name, std::string_view field);
  bool field_value();
  bool no_string(std::string_view what);
  bool read_string();
  bool escape(std::size_t& i, std::string_view raw, std::size_t begin);

  std::string_view text_;
  std::size_t at_ = 0;
  bool partial_ = false;
  std::string open_;  // brackets around the value being skipped
};

/// From quote to quote. Inside may be anything: only a backslash changes where it ends.
bool Scanner::skip_string() {
  if (!take('"')) return false;
  while (true) {
    while (!at_end() && text_[at_] != '"' && text_[at_] != '\\') ++at_;
    if (at_end()) return wrong();
    if (text_[at_] == '"') break;
    at_ = std::min(at_ + 2, text_.size());
  }
  ++at_;
  return true;
}

bool Scanner::skip_word(std::string_view& word) {
  const std::size_t begin = at_;
  const auto belongs = [](char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '+' || c == '.';
  };
  while (!at_end() && belongs(text_[at_])) ++at_;
  word = text_.substr(begin, at_ - begin);
  if (at_end()) return wrong();  // a bare value is always followed by something
  if (word == "true" || word == "false" || word == "null" || is_number(word) || is_no_finite_number(word)) return true;
  at_ = begin;
  return wrong();
}

bool Scanner::key(std::string_view& name) {
  const std::size_t begin = at_ + 1;
  if (!skip_string()) return false;
  name = text_.substr(begin, at_ - 1 - begin);
  space();
  if (!take(':')) return false;
  space();
  return true;
}

/// Without recursion: a line may be nested a million deep.
bool Scanner::skip_value() {
  std::string_view ignored;
  open_.clear();
  while (true) {  // a value begins here
    space();
    if (is_at('{') || is_at('[')) {
      open_ += text_[at_++];
      space();
      const bool object = open_.back() == '{';
      if (!is_at(object ? '}' : ']')) {
        if (object && !key(ignored)) return false;
        continue;
      }
      ++at_;
      open_.pop_back();
    } else if (is_at('"') ? !skip_string() : !skip_word(ignored)) {
      return false;
    }
    while (true) {  // a value has ended here
      if (open_.empty()) return true;
      space();
      const bool object = open_.back() == '{';
      if (is_at(',')) {
        ++at_;
        space();
        if (object && !key(ignored)) return false;
        break;
      }
      if (!take(object ? '}' : ']')) return false;
      open_.pop_back();
    }
  }
}

bool Scanner::no_string(std::string_view what) {
  why = fmt::format("not a string but {}", what);
  return false;
}

bool Scanner::field_value() {
  if (is_at('"')) return read_string();
  if (is_at('{')) return no_string("an object");
  if (is_at('[')) return no_string("an array");
  std::string_view word;
  const std::size_t begin = at_;
  if (!skip_word(word)) return false;
  if (word != "null" && word != "true" && word != "false") word = is_number(word) ? "a number" : word;
  at_ = begin;
  return no_string(word);
}

/// `i`: of the character after the backslash in `raw`; moved behind the escape.
bool Scanner::escape(std::size_t& i, std::string_view raw, std::size_t begin) {
  constexpr std::string_view kLetters = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
  if (const std::size_t k = kLetters.find(raw[i]); k != std::string_view::npos) {
    *text += kMeanings[k];
    ++i;
    return true;
  }
  const auto unit_at = [&](std::size_t at) -> std::int32_t {  // \uXXXX at `at`; -1: there is none
    if (at + 6 > raw.size() || raw[at] != '\\' || raw[at + 1] != 'u') return -1;
    std::int32_t value = 0;
    for (std::size_t k = at + 2; k < at + 6; ++k) {
      const char c = raw[k];
      const int digit = is_digit(c)            ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) return -1;
      value = value * 16 + digit;
    }
    return value;
  };
  const std::int32_t unit = unit_at(i - 1);
  if (unit < 0) {
    at_ = begin + i;
    return wrong();
  }
  std::int32_t point = unit;
  i += 5;
  if (unit >= 0xD800 && unit < 0xE000) {
    const std::int32_t low = unit < 0xDC00 ? unit_at(i) : -1;
    if (low < 0xDC00 || low > 0xDFFF) {
      why = fmt::format("half a surrogate pair (\\u{:04x} alone) at byte {}, which JSON can write and UTF-8 cannot",
                        unit, begin + i - 5);
      return false;
    }
    point = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
    i += 6;
  }
  append_utf8(*text, point);
  return true;
}

bool Scanner::read_string() {
  const std::size_t begin = at_ + 1;
  if (!skip_string()) return false;
  const std::string_view raw = text_.substr(begin, at_ - 1 - begin);
  text->clear();
  for (std::size_t i = 0; i < raw.size();) {
    const std::size_t from = i;
    while (i < raw.size() && raw[i] != '\\' && static_cast<unsigned char>(raw[i]) >= 0x20) ++i;
    text->append(raw, from, i - from);
    if (i == raw.size()) break;
    if (raw[i] != '\\') {
      why = fmt::format("broken JSON: the control character 0x{:02X} stands as it is at byte {}",
                        static_cast<unsigned char>(raw[i]), begin + i + 1);
      return false;
    }
    if (!escape(++i, raw, begin)) return false;
  }
  if (const std::size_t valid = utf8_valid_prefix(raw); valid < raw.size()) {
    why = fmt::format("invalid UTF-8 (byte 0x{:02X}) at byte {}", static_cast<unsigned char>(raw[valid]),
                      begin + valid + 1);
    return false;
  }
  found = true;
  return true;
}

/// A field with a dot is a path, or the name of one key that has a dot in it.
bool Scanner::member(std::string_view name, std::string_view field) {
  if (name == field) return field_value();
  const bool inside = name.size() < field.size() && field.starts_with(name) && field[name.size()] == '.';
  return inside && is_at('{') ? object(field.substr(name.size() + 1)) : skip_value();
}

bool Scanner::object(std::string_view field) {
  const bool outermost = keys.empty();
  if (!take('{')) return false;
  space();
  if (is_at('}')) return take('}');
  while (true) {
    std::string_view name;
    if (!key(name)) return false;
    if (outermost) keys.push_back(name);
    std::string plain;
    if (name.find('\\') != std::string_view::npos) {  // "t\u0065xt" is "text"
      Scanner decoder(text_.substr(static_cast<std::size_t>(name.data() - text_.data()) - 1, name.size() + 2));
      decoder.text = &plain;
      if (decoder.read_string()) name = plain;
    }
    if (!member(name, field)) return false;
    space();
    if (!is_at(',')) return take('}');
    ++at_;
    space();
  }
}

std::string listed(const std::vector<std::string_view>& keys) {
  if (keys.empty()) return "it is empty";
  std::string list;
  for (std::size_t i = 0; i < keys.size() && i < 6; ++i)
    list += fmt::format("{}\"{}\"", i ? ", " : "", keys[i].substr(0, 40));
  return fmt::format("it has {}{}", list, keys.size() > 6 ? ", ..." : "");
}

}  // namespace

bool text_of_line(std::string_view line, std::string_view field, std::string& text, std::string& why) {
  Scanner scan(line);
  scan.text = &text;
  scan.space();
  const char first = scan.at_end() ? ' ' : line[scan.position()];
  if (first == '[' || first == '"') {
    why = fmt::format("{} where an object with \"{}\" should be: no \"{}\" here",
                      first == '[' ? "an array" : "a string", field, field);
    return false;
  }
  const bool whole = scan.object(field);
  scan.space();
  if (!scan.why.empty()) {
    why = fmt::format("\"{}\" is {}", field, scan.why);
    if (!scan.why.starts_with("not ")) why = fmt::format("{}, in \"{}\"", scan.why, field);
  } else if (!whole || !scan.at_end()) {
    why = fmt::format("broken JSON at byte {}", scan.position() + 1);
  } else if (!scan.found) {
    why = fmt::format("no \"{}\" in the JSON object ({}; --text-field names another)", field, listed(scan.keys));
  } else {
    return true;
  }
  return false;
}

JsonStart json_at(std::string_view bytes, std::size_t& size) {
  Scanner scan(bytes);
  scan.space();
  if (!scan.is_at('{') && !scan.is_at('[')) return JsonStart::none;
  const bool whole = scan.skip_value();
  size = scan.position();
  return whole ? JsonStart::whole : scan.partial() ? JsonStart::partial : JsonStart::none;
}

}  // namespace nsa::data
