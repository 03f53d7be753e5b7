// What a collection's files hold and where they do not fit together: what `erank data check` shows,
// and the part of it that other verbs warn of.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <unordered_set>
#include <vector>

#include "erank/base/progress.h"
#include "erank/data/records.h"

namespace erank::data {

using IdSet = std::unordered_set<std::string>;

// Ids of a kind, counted, with the first of them.
struct IdCount {
  int64_t count = 0;
  std::string example;
  void add(const std::string& id) {
    if (count++ == 0) example = id;
  }
};

// Judgements that point to nothing. A set that is not given is not looked at.
struct LostJudgements {
  IdCount of_no_query;     // judgements; the example is the query's id
  IdCount of_no_document;  // judgements; the example is the document's id
};
LostJudgements find_lost(const Qrels& qrels, const IdSet* queries, const IdSet* documents);
// A line for each of both kinds that there is: "test.tsv: 2 judgements of queries that ...".
std::vector<std::string> told(const std::string& path, const LostJudgements& lost);

// Ids that tools trip over.
struct OddIds {
  IdCount blank;      // hold a blank, which a TREC run cannot carry
  IdCount hash;       // begin with #, which some tools take for a comment
  IdCount non_ascii;  // hold characters that are not ASCII
  IdCount control;    // hold control characters
  IdCount very_long;  // have more than 128 bytes
  void add(const std::string& id);
};

// Lengths in characters.
struct Lengths {
  int64_t least = 0, median = 0, p95 = 0, most = 0;
  double mean = 0;
};
Lengths lengths_of(std::vector<int64_t> values);  // of no value: all 0

struct RecordsReport {
  std::string path;
  int64_t records = 0;   // different ids
  int64_t repeated = 0;  // records whose id was there with the same text
  IdCount conflicting;   // records whose id was there with another text
  IdCount same_text;     // records with the text of another id, that is not empty
  IdCount empty;         // without text
  int64_t repaired = 0;  // see ReadNotes
  int64_t numbered = 0;  // without id; see ReadNotes
  OddIds odd;
  Lengths lengths;
};

struct QrelsReport {
  std::string path;
  std::string split;
  int64_t queries = 0, judgements = 0, repeated = 0, comments = 0;
  std::map<int64_t, int64_t> grades;  // grade -> judgements
  IdCount without_positive;           // queries without a grade above 0
  LostJudgements lost;
  int64_t unjudged = 0;  // queries of the collection without a judgement
  OddIds odd;
};

struct RunReport {
  std::string path;
  int64_t queries = 0, hits = 0, comments = 0;
  Lengths depth;            // hits of a query
  int64_t tied = 0;         // hits with the score of another one of their query
  IdCount unknown_queries;  // queries that are not in the collection
  IdCount unknown_hits;     // hits to documents that are not there; the example is the document
  IdCount missing_queries;  // queries of the collection without a hit
  OddIds odd;
};

struct CollectionFiles {
  std::string corpus, queries, run;          // "": none
  std::map<std::string, std::string> qrels;  // split name -> path
};

struct CollectionReport {
  std::vector<RecordsReport> corpus, queries;  // one or none
  std::vector<QrelsReport> qrels;
  std::vector<RunReport> run;  // one or none
};

// Reads every file once. Memory is that of the ids and a hash of each text. Throws as the readers
// of records.h do, but for ids that come twice in corpus and queries, which are counted.
CollectionReport check_collection(const CollectionFiles& files, const std::string& text_field,
                                  base::ProgressSink* progress = nullptr);

}  // namespace erank::data
