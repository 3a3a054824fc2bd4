[
  line_length: 120,
  inputs: [
    "{mix,.formatter}.exs",
    "{lib,bench,demo,examples,scripts}/**/*.{ex,exs}",
    "test/*.exs",
    "test/{legation,mix,support,property,integration,netns,chaos,attacks}/**/*.{ex,exs}",
    "test/consumer/{mix,.formatter}.exs",
    "test/consumer/{lib,test}/**/*.{ex,exs}"
  ]
]
