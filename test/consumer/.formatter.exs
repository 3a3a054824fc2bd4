[line_length: 120, inputs: ["{mix,.formatter}.exs", "test/**/*.exs"]]
