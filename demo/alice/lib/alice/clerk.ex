defmodule Alice.Clerk do
  @moduledoc "Answers, with `GenServer.reply/2`, the questions that were put to the desk: the oldest first, one each time it is told to."

  use GenServer

  def start_link(_opts), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc "Answers the oldest question; waits for one if there is none. Returns the question."
  def answer(text), do: GenServer.call(__MODULE__, {:answer, text})

  @impl true
  def init(nil), do: {:ok, %{questions: :queue.new(), answers: :queue.new()}}

  @impl true
  def handle_call({:answer, text}, from, state),
    do: {:noreply, serve(%{state | answers: :queue.in({text, from}, state.answers)})}

  @impl true
  def handle_cast({:question, question, from}, state),
    do: {:noreply, serve(%{state | questions: :queue.in({question, from}, state.questions)})}

  defp serve(state) do
    with {{:value, {question, asker}}, questions} <- :queue.out(state.questions),
         {{:value, {text, teller}}, answers} <- :queue.out(state.answers) do
      GenServer.reply(asker, "#{text} (answered by #{inspect(self())})")
      GenServer.reply(teller, question)
      serve(%{state | questions: questions, answers: answers})
    else
      {:empty, _queue} -> state
    end
  end
end
