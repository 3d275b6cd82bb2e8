// A page from the disk may start no worker, so the search would not work there. This stands in for one: it runs the
// worker's script in a hidden frame. `IFrameWorker` is the name by which that script knows that it is in a frame.
if (location.protocol === "file:") {
  window.Worker = window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inside = this.frame.contentWindow;
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      inside.importScripts = async (...urls) => {
        for (const each of urls) await load(inside.document, each);
      };
      this.loaded = load(inside.document, url);
    }

    async postMessage(data) {
      await this.loaded;
      this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }));
    }
  };

  function load(inside, url) {
    return new Promise((resolve, reject) => {
      const script = inside.createElement("script");
      script.src = url;
      script.onload = resolve;
      script.onerror = reject;
      inside.head.append(script);
    });
  }
}
