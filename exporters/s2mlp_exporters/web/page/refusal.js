/** What the page will not do, in a sentence for the person in front of it. Any other error is a fault of the page. */
export class Refusal extends Error {
  name = "Refusal";
}
