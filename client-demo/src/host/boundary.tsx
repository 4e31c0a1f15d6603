/** One part of the console that fails, for an answer nobody expected, leaves the others standing. */

import { Component, type ComponentChildren } from "preact";
import { t } from "../i18n";

interface BoundaryState {
  broken: boolean;
}

export class Boundary extends Component<{ children: ComponentChildren }, BoundaryState> {
  override state: BoundaryState = { broken: false };

  static override getDerivedStateFromError(): BoundaryState {
    return { broken: true };
  }

  /** For whoever looks into it: the page itself shows no more than that it happened. */
  override componentDidCatch(error: unknown): void {
    reportError(error);
  }

  override render() {
    if (!this.state.broken) return this.props.children;
    return (
      <section class="card">
        <p class="failure" role="alert">
          {t("part.broken")}
        </p>
        <button type="button" class="plain" onClick={() => this.setState({ broken: false })}>
          {t("part.again")}
        </button>
      </section>
    );
  }
}
